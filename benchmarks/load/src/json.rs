//! One JSON object per line, written as it grows; names are plain words that need no escaping.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

pub struct Object {
    text: String,
}

impl Object {
    pub fn new() -> Self {
        Self {
            text: String::from("{"),
        }
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        let _ = write!(self.text, "\"{name}\":");
    }

    pub fn number(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        let _ = write!(self.text, "{value}");
        self
    }

    pub fn float(mut self, name: &str, value: f64) -> Self {
        self.name(name);
        if value.is_finite() {
            let _ = write!(self.text, "{value:.6}");
        } else {
            self.text.push_str("null");
        }
        self
    }

    /// For values without quotes or control characters, such as addresses and fixed words.
    pub fn word(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        let _ = write!(self.text, "\"{value}\"");
        self
    }

    pub fn object(mut self, name: &str, value: Self) -> Self {
        self.name(name);
        self.text.push_str(&value.text);
        self.text.push('}');
        self
    }

    pub fn line(mut self) -> String {
        self.text.push('}');
        self.text
    }

    pub fn print(self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", self.line())?;
        stdout.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_object() {
        let inner = Object::new().number("a", 1);
        let line = Object::new()
            .object("x", inner)
            .word("w", "b")
            .float("f", f64::NAN)
            .line();
        assert_eq!(line, r#"{"x":{"a":1},"w":"b","f":null}"#);
    }
}
