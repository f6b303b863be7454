//! Names that others chose, made safe for this disk.
//!
//! A received path is a list of components. Each becomes one harmless file name: it is no way up or out, holds no
//! separator, nothing that steers a terminal or turns the reading direction, and fits into a folder. What is only unusual
//! (a leading `-` or `.`, quotes, two spaces, a name that another system reserves) stays as it is.
//! The names of one offer are made different from each other, so that none of its files can take the place of another.

use std::borrow::Cow;
use std::collections::BTreeMap;

use file_transfer::manifest::MAX_DEPTH;
use icu_normalizer::ComposingNormalizer;

/// Longest name of one file or folder in bytes: what Linux file systems take.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// Longest extension, in bytes with its dot, that is kept when a name is cut.
const MAX_EXTENSION_BYTES: usize = 32;

/// Longest path in bytes, separators included. Below the 4,096 of Linux by as much as the download folder may take.
pub(crate) const MAX_PATH_BYTES: usize = 3_000;

/// What stands for a name of which nothing is left.
const NAMELESS: &str = "_";

/// Why the paths of an offer cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// A path has no component.
    #[error("a path in it is empty")]
    Empty,
    /// A path has more than [`MAX_DEPTH`] components.
    #[error("a path in it is deeper than {MAX_DEPTH} folders")]
    TooDeep,
    /// A path is longer than [`MAX_PATH_BYTES`].
    #[error("a path in it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
}

/// How the folder that the names are for tells names apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `A` and `a` are two files.
    Sensitive,
    /// `A` and `a` are one file, and so must not both come out of one offer.
    Folded,
}

/// Makes one component safe. What comes out is never empty, `.` or `..`, and is at most [`MAX_NAME_BYTES`] long.
pub(crate) fn safe(name: &str) -> String {
    let visible = name.chars().filter(|&char| !is_invisible(char));
    let mut out = visible.map(|char| if is_dangerous(char) { '_' } else { char }).collect::<String>();
    // A backslash is a character like any other here, but not one that leads up or out once the file is carried on to a
    // system where it separates.
    let drive = {
        let mut chars = out.chars();
        chars.next().is_some_and(|first| first.is_ascii_alphabetic()) && chars.next() == Some(':')
    };
    if drive || out.starts_with('\\') || out.split('\\').any(|part| part == "..") {
        out = out.replace('\\', "_");
    }
    if drive {
        out.replace_range(1..2, "_");
    }
    let out = composed(&out);
    if out == ".." {
        return "__".to_owned();
    }
    // Trailing dots and spaces are invisible or cut off elsewhere: two such names would be one.
    let ends = ['.', ' '];
    let cut = cut(out.trim_end_matches(ends), MAX_NAME_BYTES);
    let cut = cut.trim_end_matches(ends);
    if cut.is_empty() { NAMELESS.to_owned() } else { cut.to_owned() }
}

/// Another name for a file whose name is taken: `name (2).txt`. The number stands before the extension, so that the file
/// still opens with what it opened with.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    let (stem, extension) = split(name);
    let tail = format!(" ({number}){extension}");
    let stem = truncated(stem, MAX_NAME_BYTES.saturating_sub(tail.len()));
    format!("{stem}{tail}")
}

/// The safe paths for all paths of one offer, in the same order: no two of them are the same, and none runs through one
/// that is a file.
///
/// # Errors
/// When a path is empty, too deep or too long; then the whole offer is of no use.
pub(crate) fn plan<'a, I, P>(paths: I, case: Case) -> Result<Vec<Vec<String>>, NameError>
where
    I: IntoIterator<Item = (P, bool)>,
    P: IntoIterator<Item = &'a str>,
{
    let mut root = Folder::default();
    let mut out = Vec::new();
    for (path, is_folder) in paths {
        let components = path.into_iter().take(MAX_DEPTH + 1).collect::<Vec<_>>();
        let (last, parents) = components.split_last().ok_or(NameError::Empty)?;
        if components.len() > MAX_DEPTH {
            return Err(NameError::TooDeep);
        }
        let mut folder = &mut root;
        let mut safe_path = Vec::with_capacity(components.len());
        for parent in parents {
            let (name, inner) = folder.enter(parent, case);
            safe_path.push(name);
            folder = inner;
        }
        safe_path.push(if is_folder { folder.enter(last, case).0 } else { folder.take(safe(last), case) });
        if safe_path.iter().map(|name| name.len() + 1).sum::<usize>() > MAX_PATH_BYTES {
            return Err(NameError::TooLong);
        }
        out.push(safe_path);
    }
    Ok(out)
}

/// What one offer puts into one folder.
#[derive(Default)]
struct Folder {
    /// Every name in use, as the file system compares names, with the next number to try for another such name.
    used: BTreeMap<String, u32>,
    /// The folders, by the name that the sender gave them.
    folders: BTreeMap<String, (String, Folder)>,
}

impl Folder {
    /// The folder that the sender calls so, which is made when it is met first.
    fn enter(&mut self, name: &str, case: Case) -> (String, &mut Folder) {
        if !self.folders.contains_key(name) {
            let safe = self.take(safe(name), case);
            self.folders.insert(name.to_owned(), (safe, Folder::default()));
        }
        // The entry stands by now, so nothing is made here.
        let (safe, folder) = self.folders.entry(name.to_owned()).or_default();
        (safe.clone(), folder)
    }

    /// A name like this one that nothing in the folder has.
    fn take(&mut self, name: String, case: Case) -> String {
        let first = key(&name, case);
        let Some(next) = self.used.get(&first).copied() else {
            self.used.insert(first, 2);
            return name;
        };
        let mut number = next;
        loop {
            let candidate = numbered(&name, number);
            number = number.saturating_add(1);
            let candidate_key = key(&candidate, case);
            if !self.used.contains_key(&candidate_key) {
                self.used.insert(first, number);
                self.used.insert(candidate_key, 2);
                return candidate;
            }
        }
    }
}

/// The name as a file system compares it.
fn key(name: &str, case: Case) -> String {
    match case {
        Case::Sensitive => name.to_owned(),
        Case::Folded => composed(&name.to_uppercase().to_lowercase()).into_owned(),
    }
}

fn composed(text: &str) -> Cow<'_, str> {
    ComposingNormalizer::new_nfc().normalize(text)
}

/// A name of at most so many bytes, cut before its extension.
pub(crate) fn cut(name: &str, limit: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    let stem = truncated(stem, limit.saturating_sub(extension.len()));
    format!("{stem}{extension}")
}

/// The longest beginning of at most so many bytes that ends at a character.
fn truncated(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// A name without its extension, and the extension with its dot. A name that begins with its only dot has none.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= MAX_EXTENSION_BYTES && at + 1 < name.len() => name.split_at(at),
        _ => (name, ""),
    }
}

/// What becomes `_`: separators, control characters, line ends, and what turns the reading direction.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '/'
            | '\u{61c}' | '\u{200e}' | '\u{200f}'   // Direction marks.
            | '\u{2028}' | '\u{2029}'               // Line and paragraph separators.
            | '\u{202a}'..='\u{202e}'               // Embeddings and overrides.
            | '\u{2066}'..='\u{2069}'               // Isolates.
            | '\u{fff9}'..='\u{fffb}'               // Interlinear annotations.
            | '\u{e0000}'..='\u{e007f}') // Tags.
}

/// What is left out, because nobody sees it and two names could differ in nothing else.
fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}'
        | '\u{feff}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_unusual_stays() {
        for name in [
            "-rf",
            ".bashrc",
            "con.txt",
            "CON",
            "NUL",
            "aux.h",
            "it's \"q\" \\ $HOME `id`.txt",
            "two  words",
            " x",
            "a\\b",
            "naïve.txt",
            "日本語",
            "*?<>|:",
            "1:b",
            "...a",
            "~",
            "a b (2).txt",
            "🦀.rs",
        ] {
            assert_eq!(safe(name), name);
        }
    }

    #[test]
    fn what_leads_away_or_deceives_is_replaced() {
        for (name, becomes) in [
            ("", "_"),
            (".", "_"),
            ("..", "__"),
            ("...", "_"),
            (" ", "_"),
            ("../x", ".._x"),
            ("/etc/passwd", "_etc_passwd"),
            ("a/../b", "a_.._b"),
            ("a\\..\\b", "a_.._b"),
            ("..\\x", ".._x"),
            ("\\\\host\\share", "__host_share"),
            ("C:\\x", "C__x"),
            ("C:", "C_"),
            ("c:x", "c_x"),
            ("a\0b", "a_b"),
            ("x\u{1b}[2J.txt", "x_[2J.txt"),
            ("a\nb\rc\td\u{7f}e\u{9b}f", "a_b_c_d_e_f"),
            ("a\u{202e}txt.exe", "a_txt.exe"),
            ("a\u{2066}b\u{200f}c\u{2028}d", "a_b_c_d"),
            ("a\u{200b}b\u{feff}c", "abc"),
            (".\u{200b}.", "__"),
            ("\u{200d}", "_"),
            ("end.", "end"),
            ("end. . ", "end"),
            // A letter with its mark apart becomes one letter.
            ("e\u{301}.txt", "é.txt"),
        ] {
            assert_eq!(safe(name), becomes, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character_and_keeps_its_extension() {
        assert_eq!(safe(&"n".repeat(255)), "n".repeat(255));
        assert_eq!(safe(&"n".repeat(4_096)), "n".repeat(255));
        let long = safe(&format!("{}.tar", "n".repeat(4_096)));
        assert_eq!((long.len(), long.ends_with("n.tar")), (255, true));
        let wide = safe(&format!("{}.txt", "é".repeat(200)));
        assert_eq!((wide.len(), wide.ends_with("é.txt")), (254, true));
        let numbered = numbered(&wide, 17);
        assert!(numbered.len() <= 255 && numbered.ends_with("é (17).txt"), "{numbered}");
        // What looks like an extension and is not does not eat the name.
        assert_eq!(safe(&format!("a.{}", "n".repeat(400))).len(), 255);
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        assert_eq!(numbered("a.txt", 2), "a (2).txt");
        assert_eq!(numbered("a", 3), "a (3)");
        assert_eq!(numbered(".bashrc", 2), ".bashrc (2)");
    }

    fn planned(paths: &[&[&str]], case: Case) -> Vec<String> {
        let paths = paths.iter().map(|path| (path.iter().copied(), false));
        plan(paths, case).unwrap().into_iter().map(|path| path.join("/")).collect()
    }

    #[test]
    fn twins_of_one_offer_are_kept_apart() {
        let nfc = planned(&[&["\u{e9}"], &["e\u{301}"], &["x\u{200b}"], &["x"], &["x"], &["x (2)"]], Case::Sensitive);
        assert_eq!(nfc, ["é", "é (2)", "x", "x (2)", "x (3)", "x (2) (2)"]);
        assert_eq!(planned(&[&["A"], &["a"]], Case::Sensitive), ["A", "a"]);
        let folded = planned(&[&["A.txt"], &["a.TXT"], &["D", "x"], &["d", "x"], &["D", "y"]], Case::Folded);
        assert_eq!(folded, ["A.txt", "a (2).TXT", "D/x", "d (2)/x", "D/y"]);
    }

    #[test]
    fn no_path_runs_through_a_file() {
        assert_eq!(planned(&[&["a"], &["a", "b"], &["a", "c"]], Case::Sensitive), ["a", "a (2)/b", "a (2)/c"]);
        assert_eq!(planned(&[&["a", "b"], &["a"]], Case::Sensitive), ["a/b", "a (2)"]);
        // Two ways up that the sender meant to be different folders stay different.
        assert_eq!(planned(&[&["..", "x"], &["__", "x"]], Case::Sensitive), ["__/x", "__ (2)/x"]);
        let both = [(["a"], true), (["a"], false)].map(|(path, folder)| (path.into_iter(), folder));
        assert_eq!(plan(both, Case::Sensitive).unwrap(), [["a"], ["a (2)"]]);
    }

    #[test]
    fn many_twins_cost_no_more_than_each_its_own() {
        let many = vec![&["x"][..]; 20_000];
        let planned = planned(&many, Case::Folded);
        assert_eq!(planned.last().unwrap(), "x (20000)");
    }

    #[test]
    fn an_offer_with_impossible_paths_is_refused() {
        let refused = |path: &[&str]| plan([(path.iter().copied(), false)], Case::Sensitive).unwrap_err();
        assert_eq!(refused(&[]), NameError::Empty);
        assert_eq!(refused(&vec!["a"; MAX_DEPTH + 1]), NameError::TooDeep);
        assert_eq!(refused(&vec!["n".repeat(255).as_str(); 20]), NameError::TooLong);
        assert!(plan([(["a"; MAX_DEPTH], false)], Case::Sensitive).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_a_name_is_one_component(name in ".*") {
            let safe = safe(&name);
            proptest::prop_assert!(!safe.is_empty() && safe.len() <= MAX_NAME_BYTES);
            proptest::prop_assert!(safe != "." && safe != ".." && !safe.contains(['/', '\0']));
            proptest::prop_assert!(!safe.chars().any(|char| is_dangerous(char) || is_invisible(char)));
            proptest::prop_assert_eq!(super::safe(&safe), safe);
        }
    }
}
