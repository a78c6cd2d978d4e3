//! Rust text → the tokens, paths and comments that a rule looks at.
//!
//! The tidy tests call it for every file of the workspace. It is a reader and no compiler: strings
//! are left out, code under `#[cfg(test)]` is left out (tests may cross every border), `use` trees
//! are spread out into the paths that they name, and nothing is resolved that needs another file.

/// A file, as far as the rules need to know it.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The text as it stands.
    pub(crate) text: String,
    /// Words and signs outside tests, strings and comments.
    pub(crate) tokens: Vec<Token>,
    /// The same, of tests as well.
    pub(crate) tokens_with_tests: Vec<Token>,
    /// Line comments and block comments.
    pub(crate) comments: Vec<Token>,
    /// Every path of the code outside tests.
    pub(crate) paths: Vec<CodePath>,
    /// Modules of files of their own that only tests have.
    pub(crate) test_modules: Vec<String>,
}

/// A piece of text and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A path like `crate::feed::Session`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodePath {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// It stands in a `use`.
    pub(crate) imported: bool,
}

impl Source {
    /// Reads a Rust file.
    pub(crate) fn rust(text: &str) -> Self {
        let (all, comments) = tokenize(text);
        let (tokens, test_modules) = without_tests(&all);
        let paths = paths(&tokens);
        let text = text.to_owned();
        Self { text, tokens, tokens_with_tests: all, comments, paths, test_modules }
    }

    /// Keeps a file that is not Rust as it stands.
    pub(crate) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Turns the whole file into test code.
    pub(crate) fn make_test(&mut self) {
        self.tokens.clear();
        self.paths.clear();
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A place in a text.
struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Reader {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn ended(&self) -> bool {
        self.at >= self.chars.len()
    }

    fn next(&mut self) -> char {
        let c = self.peek(0);
        self.at += 1;
        self.line += usize::from(c == '\n');
        c
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while !self.ended() && belongs(self.peek(0)) {
            taken.push(self.next());
        }
        taken
    }

    /// Skips a string that begins here with `hashes` signs `#` (raw) or none, after its prefix.
    fn skip_string(&mut self, raw: bool) {
        let hashes = self.take_while(|c| c == '#').len();
        self.next();
        while !self.ended() {
            match self.next() {
                '\\' if !raw => {
                    self.next();
                }
                '"' if (0..hashes).all(|i| self.peek(i) == '#') => {
                    self.at += hashes;
                    return;
                }
                _ => {}
            }
        }
    }

    fn block_comment(&mut self) -> String {
        let mut comment = String::new();
        let mut depth = 0;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    comment.push(self.next());
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                break;
            }
        }
        comment
    }
}

/// The tokens and the comments of a text.
fn tokenize(text: &str) -> (Vec<Token>, Vec<Token>) {
    let mut reader = Reader { chars: text.chars().collect(), at: 0, line: 1 };
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    while !reader.ended() {
        let line = reader.line;
        let mut token = |text: String| tokens.push(Token { line, text });
        match (reader.peek(0), reader.peek(1)) {
            ('/', '/') => {
                comments.push(Token { line, text: reader.take_while(|c| c != '\n') });
            }
            ('/', '*') => comments.push(Token { line, text: reader.block_comment() }),
            ('"', _) => reader.skip_string(false),
            // A character, or else a lifetime, whose name is then read as a word.
            ('\'', '\\') => {
                reader.at += 3;
                reader.take_while(|c| c != '\'');
                reader.next();
            }
            ('\'', _) if reader.peek(2) == '\'' => reader.at += 3,
            (c, _) if is_word(c) => {
                let word = reader.take_while(is_word);
                let string_follows = match (reader.peek(0), reader.peek(1)) {
                    ('"', _) => true,
                    ('#', '"' | '#') => word.ends_with('r'),
                    _ => false,
                };
                if string_follows && matches!(word.as_str(), "r" | "b" | "c" | "br" | "cr") {
                    reader.skip_string(word.ends_with('r'));
                } else {
                    token(word);
                }
            }
            (':', ':') => {
                reader.at += 2;
                token("::".to_owned());
            }
            _ => {
                let sign = reader.next();
                if !sign.is_whitespace() && sign != '\'' {
                    token(sign.to_string());
                }
            }
        }
    }
    (tokens, comments)
}

fn texts<const N: usize>(tokens: &[Token]) -> Option<[&str; N]> {
    let mut texts = [""; N];
    for (text, token) in texts.iter_mut().zip(tokens.get(..N)?) {
        *text = &token.text;
    }
    Some(texts)
}

/// Leaves out what only tests compile; also gives the modules among it that are files.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if texts(&tokens[at..]) == Some(["#", "!", "[", "cfg", "(", "test", ")"]) {
            return (Vec::new(), modules);
        }
        if texts(&tokens[at..]) == Some(["#", "[", "cfg", "(", "test", ")", "]"]) {
            let item = &tokens[at + 7..];
            let len = item_len(item);
            let declared = item[..len].iter().position(|token| token.text == "mod");
            if let Some(declared) = declared
                && item.get(declared + 2).is_some_and(|token| token.text == ";")
            {
                modules.push(item[declared + 1].text.clone());
            }
            at += 7 + len;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    (kept, modules)
}

/// How many tokens the item (or field, or statement) at the beginning has, attributes included.
fn item_len(tokens: &[Token]) -> usize {
    let mut depth = 0usize;
    let mut attribute = false;
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "#" if depth == 0 => attribute = true,
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return i,
            "]" if depth == 1 && attribute => {
                depth = 0;
                attribute = false;
            }
            "}" if depth == 1 => return i + 1,
            ")" | "]" | "}" => depth -= 1,
            ";" | "," if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Every path that the tokens name.
fn paths(tokens: &[Token]) -> Vec<CodePath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        let follows = |text| tokens.get(at + 1).is_some_and(|next| next.text == text);
        if token.text == "use" && !follows("<") {
            at += 1;
            use_tree(tokens, &mut at, &[], &mut found);
        } else if token.text.starts_with(is_word) {
            let mut segments = vec![token.text.clone()];
            let line = token.line;
            at += 1;
            while let Some(["::", name]) = texts(&tokens[at..])
                && name.starts_with(is_word)
            {
                segments.push(name.to_owned());
                at += 2;
            }
            found.push(CodePath { line, segments, imported: false });
        } else {
            at += 1;
        }
    }
    found
}

/// Spreads out the tree of a `use` that begins at `at`, below `prefix`.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &[String], found: &mut Vec<CodePath>) {
    let mut segments = prefix.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "," | "}" | ";" => break,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    use_tree(tokens, at, &segments, found);
                    *at += usize::from(tokens.get(*at).is_some_and(|token| token.text != "}"));
                }
                *at += 1;
                return;
            }
            "as" => *at += 2,
            "::" | "*" => *at += 1,
            "self" if !segments.is_empty() => *at += 1,
            name => {
                segments.push(name.to_owned());
                *at += 1;
            }
        }
    }
    if segments.len() > prefix.len() || segments.len() > 1 {
        found.push(CodePath { line, segments, imported: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        Source::rust(text).paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        assert_eq!(
            named("use std::{fmt::{self, Debug}, io as other};\nuse a::*;"),
            ["std::fmt", "std::fmt::Debug", "std::io", "a"]
        );
        assert_eq!(named("crate::feed::run::<u8>()"), ["crate::feed::run", "u8"]);
    }

    #[test]
    fn strings_comments_and_tests_are_no_code() {
        let text = r####"
            // use a;
            /* use b; /* use c; */ use d; */
            const S: &str = "use e; \" use f;";
            const R: &[u8] = br#"use g; " use h;"#;
            const Q: [char; 3] = ['"', '\'', '\u{41}'];
            #[cfg(test)]
            use i::{j, k};
            #[cfg(test)]
            #[allow(unused)]
            mod tests { use l; fn f() { m::n() } }
            #[cfg(test)]
            mod far;
            struct X<'a> { #[cfg(test)] o: p::Q, r: &'a s::T }
        "####;
        let source = Source::rust(text);
        let long: Vec<_> = source.paths.iter().filter(|path| path.segments.len() > 1).collect();
        assert_eq!(long.len(), 1, "{long:?}");
        assert_eq!(long[0].segments, ["s", "T"]);
        assert_eq!(long[0].line, 14);
        assert!(source.paths.iter().all(|path| !path.imported), "{:?}", source.paths);
        assert_eq!(source.test_modules, ["far"]);
        assert_eq!(source.comments.len(), 2);
    }
}
