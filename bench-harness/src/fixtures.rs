// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tests of several modules need.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

/// Writes a file below a root that stands for `/`.
pub(crate) fn put_file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The validator of a schema, which is one itself.
pub(crate) fn validator(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema itself is wrong");
    jsonschema::validator_for(&schema).unwrap()
}

/// A document fits its schema, and without any key of any of these objects it does not.
#[track_caller]
pub(crate) fn each_key_is_required(validator: &Validator, good: &Value, parents: &[&str]) {
    let errors: Vec<_> = validator.iter_errors(good).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    for parent in parents {
        let object = good.pointer(parent).unwrap().as_object().unwrap();
        for key in object.keys() {
            let mut less = good.clone();
            less.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            assert!(!validator.is_valid(&less), "no {parent}/{key}");
        }
    }
}
