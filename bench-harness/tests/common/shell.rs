// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Command lines as a shell reads them, as far as our samples need it.

/// The words of a line of shell, without quotes. What a shell would put in for a variable is "1", which is
/// a name as well as a number.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => all.extend(word.take()),
            // A comment, if a word begins with it.
            ('#', None) if word.is_none() => break,
            ('$', None | Some('"')) => {
                let close = match rest.peek() {
                    Some('{') => Some('}'),
                    Some('(') => Some(')'),
                    _ => None,
                };
                match close {
                    Some(close) => drop(rest.by_ref().find(|c| *c == close)),
                    None => {
                        while rest.next_if(|c| c.is_alphanumeric() || "_@".contains(*c)).is_some() {
                        }
                    }
                }
                word.get_or_insert_default().push('1');
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is open: {line}");
    all.extend(word);
    all
}

/// The command lines of tce-bench in a script, as the program would get them.
pub(crate) fn command_lines(script: &str) -> Vec<Vec<String>> {
    let joined = script.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut all = Vec::new();
    for line in lines.filter(|line| line.split(' ').any(|word| word == "tce-bench")) {
        let words = words(line);
        // Not the package that cargo is to build.
        let called = |at: &usize| words[*at] == "tce-bench" && (*at == 0 || words[*at - 1] != "-p");
        let Some(at) = (0..words.len()).find(called) else { continue };
        let ends = |word: &&String| {
            !["|", "||", "&&", ";"].contains(&word.as_str()) && !word.starts_with(['>', '<'])
        };
        // "$@" of a script is options that its user gives.
        let own =
            words[at..].iter().take_while(ends).filter(|word| *word != "1" || !line.contains("$@"));
        all.push(own.cloned().collect());
    }
    all
}
