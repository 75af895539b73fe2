// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The frame of a page.

use super::html::Html;

const STYLE: &str = include_str!("page.css");
const PLOT_STYLE: &str = include_str!("plot.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing from anywhere: the page may not fetch, whatever gets into it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
     base-uri 'none'; form-action 'none'";

/// A page of one title; `body` writes header and main.
pub(super) fn page(title: &str, body: impl FnOnce(&mut Html)) -> String {
    let mut html = Html::default();
    html.tag("html", &[("lang", "en")], |h| {
        h.tag("head", &[], |h| {
            h.void("meta", &[("charset", "utf-8")]);
            h.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            h.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            h.void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            h.leaf("title", &[], title);
            h.own("style", &[], STYLE);
            h.own("style", &[("id", "plot-style")], PLOT_STYLE);
        });
        h.tag("body", &[], |h| {
            body(h);
            h.tag("footer", &[], |h| {
                let made = format!(
                    "Written by tce-bench {}. Times are per call unless it says per TCE; a percentile with \
                     fewer than 10 samples beyond it is a dash. The exact value is behind each rounded one.",
                    env!("CARGO_PKG_VERSION")
                );
                h.leaf("p", &[], &made);
            });
            h.own("script", &[], SCRIPT);
        });
    });
    html.finish()
}

/// The head of a page: whose it is, its title, and `rest`.
pub(super) fn banner(html: &mut Html, title: &str, rest: impl FnOnce(&mut Html)) {
    html.tag("header", &[], |h| {
        let whose = "tce-bench · DMA mapping for POWER's sPAPR TCE IOMMU";
        h.leaf("p", &[("class", "kicker")], whose);
        h.leaf("h1", &[], title);
        rest(h);
    });
}

/// A section that the menu leads to.
pub(super) fn section(
    html: &mut Html,
    id: &str,
    title: &str,
    about: &str,
    body: impl FnOnce(&mut Html),
) {
    let by = format!("{id}-h");
    html.tag("section", &[("id", id), ("aria-labelledby", &by)], |h| {
        h.leaf("h2", &[("id", &by)], title);
        if !about.is_empty() {
            h.leaf("p", &[("class", "about")], about);
        }
        body(h);
    });
}

/// Links to sections, by id and name.
pub(super) fn menu(html: &mut Html, links: &[(&str, &str)]) {
    html.tag("nav", &[("aria-label", "Sections")], |h| {
        for (id, name) in links {
            h.leaf("a", &[("href", &format!("#{id}"))], name);
            h.text("\n");
        }
    });
}

/// Short facts in a row; each with a class for its colour.
pub(super) fn chips(html: &mut Html, all: &[(&str, String)]) {
    html.tag("ul", &[("class", "chips")], |h| {
        for (class, text) in all {
            h.leaf("li", &[("class", format!("chip {class}").trim())], text);
        }
    });
}
