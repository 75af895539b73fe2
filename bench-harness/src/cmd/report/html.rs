// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a page that is HTML and well-formed XML at once. Text and attributes are escaped here and nowhere
//! else: no other module of the report writes a `<`.

use std::fmt::Write;

/// A page in the making.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
}

/// Names and values of an element.
pub(super) type Attrs<'a> = &'a [(&'a str, &'a str)];

impl Html {
    /// An element with what `body` writes into it.
    pub(super) fn tag(&mut self, name: &str, attrs: Attrs<'_>, body: impl FnOnce(&mut Self)) {
        self.open(name, attrs);
        self.out.push('>');
        body(self);
        // Writing into a String cannot fail.
        let _ = writeln!(self.out, "</{name}>");
    }

    /// An element with text.
    pub(super) fn leaf(&mut self, name: &str, attrs: Attrs<'_>, text: &str) {
        self.open(name, attrs);
        self.out.push('>');
        self.text(text);
        let _ = write!(self.out, "</{name}>");
    }

    /// An element without content: of HTML one that never has any, or any of SVG.
    pub(super) fn void(&mut self, name: &str, attrs: Attrs<'_>) {
        self.open(name, attrs);
        self.out.push_str("/>");
    }

    fn open(&mut self, name: &str, attrs: Attrs<'_>) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attrs {
            let _ = write!(self.out, " {key}=\"");
            self.text(value);
            self.out.push('"');
        }
    }

    /// Text as text, whatever is in it.
    pub(super) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\n' | '\t' => self.out.push(c),
                // Neither XML has control characters, nor has a name any business to turn the line around.
                _ if c.is_control() || is_bidi(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    self.out.push('\u{fffd}');
                }
                _ => self.out.push(c),
            }
        }
    }

    /// What is ours and has nothing to be escaped: a style, a script.
    pub(super) fn own(&mut self, name: &str, attrs: Attrs<'_>, content: &'static str) {
        self.open(name, attrs);
        let _ = writeln!(self.out, ">\n{content}</{name}>");
    }

    pub(super) fn finish(self) -> String {
        format!("<!DOCTYPE html>\n{}", self.out)
    }
}

const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let mut html = Html::default();
        html.tag("p", &[("title", "\"><script>")], |h| h.text("a < b & \u{1b}c\u{202e}</p>"));
        assert_eq!(
            html.out,
            "<p title=\"&quot;&gt;&lt;script&gt;\">a &lt; b &amp; \u{fffd}c\u{fffd}&lt;/p&gt;</p>\n"
        );
    }
}
