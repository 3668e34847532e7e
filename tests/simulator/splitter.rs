//! First-level elements of a stream that comes in pieces.

/// What has come of a stream so far.
#[derive(Default)]
pub struct Splitter {
    text: String,
    at: usize,
    depth: usize,
}

impl Splitter {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.text.push_str(std::str::from_utf8(bytes).expect("the simulator speaks ASCII"));
    }

    /// The next whole element, header or close tag.
    pub fn next(&mut self) -> Option<String> {
        loop {
            let open = self.at + self.text[self.at..].find('<')?;
            let end = end_of_tag(&self.text, open)?;
            let tag = &self.text[open..end];
            self.at = end;
            if tag.starts_with("<?") {
                self.cut(end);
                continue;
            }
            let alone = tag.starts_with("<stream:stream") || tag.starts_with("</stream:stream");
            if tag.starts_with("</") && !alone {
                self.depth -= 1;
            } else if !tag.ends_with("/>") && !alone {
                self.depth += 1;
            }
            if self.depth == 0 {
                return Some(self.cut(end));
            }
        }
    }

    fn cut(&mut self, end: usize) -> String {
        self.at = 0;
        self.text.drain(..end).collect()
    }
}

fn end_of_tag(text: &str, open: usize) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text[open..].char_indices() {
        match (quote, c) {
            (None, '>') => return Some(open + at + 1),
            (None, '"' | '\'') => quote = Some(c),
            (Some(mark), _) if mark == c => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute, as the server writes them.
pub fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!(" {name}='"))?;
    rest.split('\'').next()
}
