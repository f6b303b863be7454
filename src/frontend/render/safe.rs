//! Text from elsewhere, made harmless for a terminal.
//!
//! Whatever a peer chose (a nickname, a team, an address, a text, a reason) passes through here before a person sees it,
//! so that it can neither steer the terminal nor look like something it is not (outward contract, section 5). What is
//! taken out stays visible as `\u{1b}`, because a silent removal would hide that somebody tried.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// So many combining marks may follow one character; real scripts need at most three or four.
const MAX_MARKS: usize = 4;

/// What stands before every line of a message but its first, so that no line can pass for a message of its own.
const CONTINUATION: &str = "\n    | ";

/// What a tab becomes.
const TAB: &str = "    ";

/// Makes a one-line text (a name, an address, a reason) harmless: it stays on one line, line breaks are escaped too.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut marks = Marks::default();
    for character in text.chars() {
        marks.push(character, &mut out);
    }
    Cow::Owned(out)
}

/// Makes the text of a message harmless. Its line breaks stay, each followed by an indentation; a tab becomes spaces.
/// Nothing is cut off, however long the text is.
pub(crate) fn safe_body(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut marks = Marks::default();
    for character in text.chars() {
        match character {
            '\n' => {
                out.push_str(CONTINUATION);
                marks = Marks::default();
            }
            '\t' => {
                out.push_str(TAB);
                marks.base();
            }
            other => marks.push(other, &mut out),
        }
    }
    out
}

/// Whether a character is never shown as it stands: it steers the terminal, changes the reading direction, or is
/// invisible. Variation selectors and combining marks are not among them, they depend on what stands before.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}'                        // Soft hyphen.
            | '\u{34f}'                     // Combining grapheme joiner.
            | '\u{61c}'                     // Arabic letter mark.
            | '\u{115f}' | '\u{1160}'       // Hangul fillers.
            | '\u{17b4}' | '\u{17b5}'       // Invisible Khmer vowels.
            | '\u{180b}'..='\u{180f}'       // Mongolian selectors and vowel separator.
            | '\u{200b}'..='\u{200f}'       // Zero width space and joiners, direction marks.
            | '\u{2028}'..='\u{202e}'       // Line and paragraph separators, bidi embeddings and overrides.
            | '\u{2060}'..='\u{206f}'       // Word joiner, invisible operators, bidi isolates.
            | '\u{3164}' | '\u{ffa0}'       // Hangul fillers.
            | '\u{feff}'                    // Byte order mark.
            | '\u{fff0}'..='\u{fffb}'       // Interlinear annotation.
            | '\u{13430}'..='\u{1345f}'     // Egyptian format controls.
            | '\u{1bca0}'..='\u{1bca3}'     // Shorthand format controls.
            | '\u{1d173}'..='\u{1d17a}'     // Musical format controls.
            | '\u{e0000}'..='\u{e0fff}' // Tags and the supplementary variation selectors.
        )
}

/// How many columns of a terminal a harmless text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// Counts what is stacked upon one character.
#[derive(Default)]
struct Marks {
    /// Whether there is a character to stack upon. At the start of a line the mark would land on our own frame.
    has_base: bool,
    /// Marks and selectors since that character.
    count: usize,
    /// Whether the last one was a variation selector.
    selected: bool,
}

impl Marks {
    fn base(&mut self) {
        *self = Self { has_base: true, count: 0, selected: false };
    }

    fn push(&mut self, character: char, out: &mut String) {
        let selector = matches!(character, '\u{fe00}'..='\u{fe0f}');
        if is_hidden(character) || (selector && self.selected) {
            escape(character, out);
            self.base();
        } else if character.width().unwrap_or(0) > 0 {
            out.push(character);
            self.base();
        } else if !self.has_base {
            escape(character, out);
            self.base();
        } else {
            self.count += 1;
            self.selected = selector;
            if self.count <= MAX_MARKS {
                out.push(character);
            } else if self.count == MAX_MARKS + 1 {
                out.push('…');
            }
        }
    }
}

fn escape(character: char, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert!(matches!(safe("bob (team red)"), Cow::Borrowed(_)));
        assert_eq!(safe("Þórr 日本 ❤️"), "Þórr 日本 ❤️");
        assert_eq!(safe_body("don't \\ worry"), "don't \\ worry");
    }

    #[test]
    fn control_sequences_are_visible() {
        assert_eq!(safe("\u{1b}[2Jbob\r\n\u{7f}\u{9b}31m"), "\\u{1b}[2Jbob\\u{d}\\u{a}\\u{7f}\\u{9b}31m");
        assert_eq!(
            safe("a\u{202e}b\u{2066}c\u{200b}\u{feff}\u{e0041}"),
            "a\\u{202e}b\\u{2066}c\\u{200b}\\u{feff}\\u{e0041}"
        );
    }

    #[test]
    fn lines_of_a_body_are_indented() {
        assert_eq!(safe_body("one\n[14:03:22] eve: two\r\n\tx"), "one\n    | [14:03:22] eve: two\\u{d}\n    |     x");
    }

    #[test]
    fn stacked_marks_are_cut() {
        assert_eq!(safe(&format!("e{}x", "\u{301}".repeat(50))), format!("e{}…x", "\u{301}".repeat(4)));
        assert_eq!(safe("\u{301}x"), "\\u{301}x");
        assert_eq!(safe("x\u{fe0f}\u{fe0f}"), "x\u{fe0f}\\u{fe0f}");
        assert_eq!(safe_body("a\n\u{301}"), "a\n    | \\u{301}");
    }

    #[test]
    fn width_counts_columns() {
        assert_eq!(width("bob"), 3);
        assert_eq!(width("日本"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            prop_assert!(!safe(&text).chars().any(is_hidden));
            prop_assert!(!safe_body(&text).chars().any(|c| c != '\n' && is_hidden(c)));
        }

        #[test]
        fn every_line_but_the_first_is_indented(text in "[a-z\n\r\u{85}\u{2028}\u{1b}]{0,40}") {
            for line in safe_body(&text).split('\n').skip(1) {
                prop_assert!(line.starts_with("    | "));
            }
        }
    }
}
