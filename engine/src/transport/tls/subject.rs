//! A certificate's subject in words (as in RFC 4514), from its DER.

/// Longer ones are cut: they come from outside and go into every log line of their flows.
const LONGEST: usize = 256;

/// The subject of a certificate that was verified, if anything of it can be said.
pub fn of(certificate: &[u8]) -> Option<String> {
    let der = rustls::pki_types::CertificateDer::from(certificate);
    let cert = webpki::EndEntityCert::try_from(&der).ok()?;
    Some(name(cert.subject())).filter(|name| !name.is_empty())
}

/// A sequence of relative names, each a set of attributes: `CN=...,O=...`, the most special first.
pub fn name(mut der: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((_, set, rest)) = element(der) {
        der = rest;
        let mut attributes = set;
        while let Some((_, attribute, rest)) = element(attributes) {
            attributes = rest;
            if let Some(part) = say(attribute) {
                parts.push(part);
            }
        }
    }
    parts.reverse();
    let mut text = parts.join(",");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text
}

fn say(attribute: &[u8]) -> Option<String> {
    let (_, oid, rest) = element(attribute)?;
    let (kind, value, _) = element(rest)?;
    let label = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        _ => return None,
    };
    let value = match kind {
        // BMPString: two bytes for each character.
        0x1e => {
            let units = value
                .chunks_exact(2)
                .map(|two| u16::from_be_bytes([two[0], two[1]]));
            char::decode_utf16(units)
                .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    };
    let mut text = format!("{label}=");
    for character in value.chars() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', character]),
            character if character.is_control() => text.push(' '),
            character => text.push(character),
        }
    }
    Some(text)
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(oid: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
        let mut inner = vec![6, oid.len() as u8];
        inner.extend(oid);
        inner.extend([kind, value.len() as u8]);
        inner.extend(value);
        let mut sequence = vec![0x30, inner.len() as u8];
        sequence.extend(inner);
        let mut set = vec![0x31, sequence.len() as u8];
        set.extend(sequence);
        set
    }

    #[test]
    fn the_most_special_part_comes_first() {
        let der = [
            part(&[0x55, 4, 6], 0x13, b"AT"),
            part(&[0x55, 4, 10], 0x0c, "Käse, Söhne".as_bytes()),
            part(&[0x55, 4, 3], 0x1e, &[0, b'm', 0, b'e']),
        ]
        .concat();
        assert_eq!(name(&der), "CN=me,O=Käse\\, Söhne,C=AT");
    }

    #[test]
    fn line_ends_and_lengths_are_harmless() {
        assert_eq!(name(&part(&[0x55, 4, 3], 0x0c, b"a\r\nb")), "CN=a  b");
        let long = part(&[0x55, 4, 3], 0x0c, &[b'x'; 100]).repeat(10);
        assert_eq!(name(&long).chars().count(), LONGEST);
    }

    /// Cut and changed at every place: never a panic, never more than asked.
    #[test]
    fn any_bytes_give_some_text() {
        let der = [
            part(&[0x55, 4, 10], 0x0c, b"organisation"),
            part(&[0x55, 4, 3], 0x1e, &[0, b'm', 0, b'e', 0xd8]),
        ]
        .concat();
        for place in 0..der.len() {
            let _ = name(&der[..place]);
            for value in 0..=255 {
                let mut wrong = der.clone();
                wrong[place] = value;
                assert!(name(&wrong).chars().count() <= LONGEST);
            }
        }
    }
}
