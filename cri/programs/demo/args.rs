//! Arguments of a tool: flags, options and what stands between them.

use std::time::Duration;

/// What is left of a tool's arguments.
pub struct Args(Vec<String>);

impl Args {
    pub fn new(args: Vec<String>) -> Self {
        Self(args)
    }

    /// Takes a flag, wherever it stands.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|a| a == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes `NAME VALUE` or `NAME=VALUE`.
    pub fn option(&mut self, name: &str) -> Result<Option<String>, String> {
        let joined = format!("{name}=");
        if let Some(at) = self.0.iter().position(|a| a.starts_with(&joined)) {
            return Ok(Some(self.0.remove(at)[joined.len()..].to_owned()));
        }
        let Some(at) = self.0.iter().position(|a| a == name) else { return Ok(None) };
        if at + 1 >= self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    /// Takes `NAME FIRST SECOND`.
    pub fn option_pair(&mut self, name: &str) -> Result<Option<(String, String)>, String> {
        let Some(at) = self.0.iter().position(|a| a == name) else { return Ok(None) };
        if at + 2 >= self.0.len() {
            return Err(format!("{name} needs two values"));
        }
        self.0.remove(at);
        Ok(Some((self.0.remove(at), self.0.remove(at))))
    }

    /// Takes a whole number.
    pub fn number(&mut self, name: &str, default: u64) -> Result<u64, String> {
        match self.option(name)? {
            Some(text) => text.parse().map_err(|_| format!("{name} {text:?} is not a number")),
            None => Ok(default),
        }
    }

    /// Takes the next argument.
    pub fn positional(&mut self, name: &str) -> Result<String, String> {
        if self.0.is_empty() { Err(format!("{name} is missing")) } else { Ok(self.0.remove(0)) }
    }

    /// Everything that is left.
    pub fn rest(self) -> Vec<String> {
        self.0
    }

    /// Nothing may be left.
    pub fn done(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some(extra) => Err(format!("{extra:?} is one argument too many")),
        }
    }
}

/// Seconds, with a fraction or not.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.trim_end_matches('s').parse().map_err(|_| format!("{text:?} is not a time in seconds"))?;
    Duration::try_from_secs_f64(value).map_err(|_| format!("{text:?} is not a time in seconds"))
}
