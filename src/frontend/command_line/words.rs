//! Shell-like words: `'…'` keeps everything as it stands, inside `"…"` a backslash keeps `"` and `\`, outside quotes it
//! keeps any character. Nothing is expanded and `#` begins no comment.

/// What separates words.
pub(super) fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace()
}

/// `text` without the blanks it begins with.
pub(super) fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

/// The first word of `text` and what follows right behind it, the separating blank included; `None` when there is none.
///
/// # Errors
///
/// The sentence says which quote is not closed.
pub(super) fn first(text: &str) -> Result<Option<(String, &str)>, String> {
    let text = skip_blanks(text);
    if text.is_empty() {
        return Ok(None);
    }
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => loop {
                match chars.next() {
                    Some((_, '\'')) => break,
                    Some((_, c)) => word.push(c),
                    None => return Err("a ' is not closed".to_owned()),
                }
            },
            '"' => loop {
                match chars.next() {
                    Some((_, '"')) => break,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, c @ ('"' | '\\'))) => word.push(c),
                        Some((_, c)) => word.extend(['\\', c]),
                        None => return Err("a \" is not closed".to_owned()),
                    },
                    Some((_, c)) => word.push(c),
                    None => return Err("a \" is not closed".to_owned()),
                }
            },
            '\\' => match chars.next() {
                Some((_, c)) => word.push(c),
                None => return Err("the line ends with a backslash that keeps nothing".to_owned()),
            },
            c if is_blank(c) => return Ok(Some((word, &text[at..]))),
            c => word.push(c),
        }
    }
    Ok(Some((word, "")))
}

/// All words of `text`.
///
/// # Errors
///
/// As [`first`].
pub(super) fn split(mut text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    while let Some((word, rest)) = first(text)? {
        words.push(word);
        text = rest;
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell_that_expands_nothing() {
        for (text, expected) in [
            ("", vec![]),
            ("  a\tb  ", vec!["a", "b"]),
            (r"'a \ b' c", vec![r"a \ b", "c"]),
            (r#""a \"b\" \\ \d""#, vec![r#"a "b" \ \d"#]),
            (r"a\ b \'", vec!["a b", "'"]),
            ("a'b'\"c\"", vec!["abc"]),
            ("'' \"\"", vec!["", ""]),
            ("# $HOME ~ *", vec!["#", "$HOME", "~", "*"]),
            ("ä\u{3000}ö", vec!["ä\u{3000}ö"]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        for text in ["'a", "\"a", "\"a\\", "a\\", "b 'a\"", "\"'"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_follows_the_first_word_is_untouched() {
        assert_eq!(first(" 'b o b'  hi \"x ").unwrap(), Some(("b o b".to_owned(), "  hi \"x ")));
    }
}
