//! Where a flow goes by what its client says first. Whoever reads next begins with it.

use super::endpoint::PlanError;
use super::overhear::overhear;
use super::reach::Aim;
use super::road::{Stop, Walk};
use crate::first_words::{self, Found, MOST};
use crate::flow::table::State;
use crate::plan::{RuleKind, RulePlan};
use crate::runtime::io::Io;

/// One rule, ready for use.
#[derive(Debug)]
pub enum Rule {
    ServerName(Pattern),
    Host(Pattern),
    Bytes(Vec<u8>),
}

/// A name, or all names below one.
#[derive(Debug)]
pub enum Pattern {
    Exact(String),
    /// With the leading dot.
    Below(String),
}

/// What the rules say to the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Rule(usize),
    None,
    More,
}

impl Rule {
    pub fn new(plan: &RulePlan) -> Result<Self, PlanError> {
        let wrong = |why: &str| PlanError {
            field: "routing.rules.pattern",
            value: plan.pattern.clone(),
            why: why.to_owned(),
        };
        match plan.kind {
            RuleKind::Sni => Pattern::new(&plan.pattern).map(Self::ServerName),
            RuleKind::Host => Pattern::new(&plan.pattern).map(Self::Host),
            RuleKind::Bytes => match from_hex(&plan.pattern) {
                Some(bytes) if !bytes.is_empty() && bytes.len() <= MOST => {
                    return Ok(Self::Bytes(bytes));
                }
                _ => return Err(wrong("not hexadecimal bytes")),
            },
        }
        .ok_or_else(|| wrong("not a name"))
    }

    fn look(&self, bytes: &[u8]) -> Look {
        match self {
            Self::ServerName(pattern) => pattern.look(first_words::server_name(bytes)),
            Self::Host(pattern) => pattern.look(first_words::http_host(bytes)),
            Self::Bytes(wanted) => {
                let len = wanted.len().min(bytes.len());
                if wanted[..len] != bytes[..len] {
                    Look::No
                } else if len == wanted.len() {
                    Look::Yes
                } else {
                    Look::More
                }
            }
        }
    }
}

enum Look {
    Yes,
    No,
    More,
}

impl Pattern {
    fn new(text: &str) -> Option<Self> {
        let (below, name) = match text.strip_prefix('*') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let dotted = name.starts_with('.');
        let bare = name.strip_prefix('.').unwrap_or(name);
        if below != dotted || bare.is_empty() || bare.contains('*') {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(if below {
            Self::Below(name)
        } else {
            Self::Exact(name)
        })
    }

    fn look(&self, found: Found) -> Look {
        match found {
            Found::More => Look::More,
            Found::Name(Some(name)) if self.matches(&name) => Look::Yes,
            Found::Other | Found::Name(_) => Look::No,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

/// The first rule that matches; one that can't tell yet holds back those behind it.
fn judge(rules: &[Rule], bytes: &[u8], last: bool) -> Verdict {
    for (index, rule) in rules.iter().enumerate() {
        match rule.look(bytes) {
            Look::Yes => return Verdict::Rule(index),
            Look::More if !last => return Verdict::More,
            Look::No | Look::More => {}
        }
    }
    Verdict::None
}

/// Listens to the client's first words, if any rule asks for them.
pub async fn choose(walk: &Walk, client: &Io) -> Result<Aim, Stop> {
    let route = &walk.flow.route;
    let Some(routing) = &route.routing else {
        return Ok(Aim::Pool(0));
    };
    walk.flow.state.set(State::Handshake);
    let until = routing.timeout.map(|limit| walk.worker.now() + limit);
    let verdict = overhear(walk, client, MOST, until, |seen, last| {
        // Silence is an answer, too: then the other side speaks first.
        match judge(&routing.rules, seen, last) {
            Verdict::More => None,
            verdict => Some(verdict),
        }
    })
    .await?;
    Ok(match verdict {
        Verdict::Rule(index) => Aim::Pool(index + 1),
        Verdict::None | Verdict::More => Aim::Pool(0),
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: RuleKind, pattern: &str) -> Result<Rule, PlanError> {
        Rule::new(&RulePlan {
            kind,
            pattern: pattern.to_owned(),
            remotes: Vec::new(),
        })
    }

    #[test]
    fn patterns_match_a_name_or_all_below_it() {
        let exact = Pattern::new("Example.com").expect("pattern");
        assert!(exact.matches("example.com"));
        assert!(!exact.matches("a.example.com"));
        let below = Pattern::new("*.example.com").expect("pattern");
        assert!(below.matches("a.example.com"));
        assert!(below.matches("a.b.example.com"));
        assert!(!below.matches("example.com"));
        assert!(!below.matches(".example.com"));
        assert!(!below.matches("badexample.com"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for (kind, pattern) in [
            (RuleKind::Sni, ""),
            (RuleKind::Sni, "*"),
            (RuleKind::Sni, "*example.com"),
            (RuleKind::Host, "a.*.com"),
            (RuleKind::Bytes, ""),
            (RuleKind::Bytes, "abc"),
            (RuleKind::Bytes, "zz"),
        ] {
            let error = rule(kind, pattern).expect_err(pattern);
            assert_eq!(error.value, pattern);
        }
    }

    #[test]
    fn rules_count_in_order_and_wait_for_the_earlier_ones() {
        let rules = [
            rule(RuleKind::Bytes, "5353482d").expect("SSH-"),
            rule(RuleKind::Host, "*.example.com").expect("host"),
            rule(RuleKind::Bytes, "474554").expect("GET"),
        ];
        assert_eq!(judge(&rules, b"", false), Verdict::More);
        assert_eq!(judge(&rules, b"", true), Verdict::None);
        assert_eq!(judge(&rules, b"SSH-2.0", false), Verdict::Rule(0));
        assert_eq!(judge(&rules, b"SSH", false), Verdict::More);
        let request = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
        assert_eq!(judge(&rules, request, false), Verdict::Rule(1));
        // The host may still come, although the last rule would match already.
        assert_eq!(judge(&rules, &request[..10], false), Verdict::More);
        let other = b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";
        assert_eq!(judge(&rules, other, false), Verdict::Rule(2));
        assert_eq!(judge(&rules, b"\x16\x03\x01", false), Verdict::None);
    }
}
