use super::*;

fn texts(
    part: impl Fn(&str) -> Option<String> + Sync,
    inputs: impl Fn(char) -> Vec<String> + Sync,
) {
    let check = |c: char| {
        for text in inputs(c) {
            let Some(once) = part(&text) else { continue };
            assert!(!once.is_empty(), "{text:?} becomes nothing");
            assert_eq!(part(&once).as_ref(), Some(&once), "{text:?}");
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let check = &check;
            scope.spawn(move || {
                (worker..=u32::from(char::MAX))
                    .step_by(4)
                    .filter_map(char::from_u32)
                    .for_each(check);
            });
        }
    });
}

/// A code point alone, and at each end of a name; of planes without characters only one of these.
fn with_letters(c: char) -> Vec<String> {
    if c > '\u{323af}' {
        return vec![format!("a{c}")];
    }
    vec![c.to_string(), format!("a{c}"), format!("{c}lice")]
}

fn local_text(text: &str) -> Option<String> {
    Some(local(text).ok()?.as_str().to_owned())
}

fn domain_text(text: &str) -> Option<String> {
    Some(domain(text).ok()?.as_str().to_owned())
}

fn resource_text(text: &str) -> Option<String> {
    Some(resource(text).ok()?.as_str().to_owned())
}

#[cfg(feature = "server")]
#[test]
fn jid_3_spellings_of_a_domain() {
    for (text, expected) in [
        ("localhost", "localhost"),
        ("LocalHost.", "localhost"),
        ("localhost\u{3002}", "localhost"),
        ("xn--bcher-kva.example", "b\u{fc}cher.example"),
        ("XN--BCHER-KVA.EXAMPLE", "b\u{fc}cher.example"),
        ("Bu\u{308}cher\u{ff0e}example", "b\u{fc}cher.example"),
        // What `jid` cannot hold stays in A-labels, however it comes: N'Ko is of Unicode 5.0.
        ("xn--lsb.example", "xn--lsb.example"),
        ("\u{7ca}.example", "xn--lsb.example"),
        ("xn--fa-hia.example", "xn--fa-hia.example"),
        ("fa\u{df}.example", "xn--fa-hia.example"),
        ("fass.example", "fass.example"),
        ("127.0.0.1.", "127.0.0.1"),
        ("\u{ff11}27.0.0.1", "127.0.0.1"),
        ("[::0001]", "[::1]"),
        ("[FE80::A].", "[fe80::a]"),
    ] {
        assert_eq!(domain_text(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "",
        ".",
        "..",
        "a..",
        "a.\u{3002}",
        "a\u{3002}.",
        "a..b",
        ".a",
        "-a",
        "a-",
        "a b",
        "a@b",
        "a/b",
        "[::1",
        "[z]",
        "xn--",
        "xn--a",
        "\u{1806}",
        "\u{1806}.z",
        "a.\u{1806}",
        "xn--c6e",
        "\u{2665}.example",
        "\u{ad}",
        "\u{200b}",
    ] {
        assert_eq!(domain_text(text), None, "{text:?}");
    }
}

#[cfg(feature = "server")]
#[test]
fn jid_3_certificates_name_a_domain_by_its_a_labels() {
    for (text, expected) in [
        ("B\u{fc}cher.example.", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("\u{7ca}.example", "xn--lsb.example"),
        ("localhost", "localhost"),
        ("[::1]", "[::1]"),
    ] {
        assert_eq!(a_labels(text).as_deref(), Ok(expected), "{text}");
    }
    assert!(a_labels("a b").is_err());
}

#[cfg(feature = "server")]
#[test]
fn jid_2_a_localpart_that_looks_like_another_is_refused() {
    for (text, expected) in [
        ("Alice", "alice"),
        ("\u{ff21}lice", "alice"),
        ("J\u{dc}RGEN", "j\u{fc}rgen"),
        ("\u{10a0}", "\u{10a0}"),
        ("\u{13a0}", "\u{13a0}"),
    ] {
        assert_eq!(local_text(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "",
        "\u{1d2c}lice",
        "\u{1f130}lice",
        "\u{212a}",
        "\u{fb01}",
        "\u{ad}",
        "a\u{1806}",
        "\u{2665}",
        "a\"b",
        "a\u{ff20}b",
        "a b",
        "a\u{3000}b",
        "\u{661}",
    ] {
        assert_eq!(local_text(text), None, "{text:?}");
    }
}

#[test]
fn limit_24_what_is_written_for_a_part_has_1023_bytes() {
    let soft = "\u{ad}".repeat(512);
    assert_eq!(resource_text(&format!("{soft}r")), None);
    assert_eq!(resource_text(&format!("{}r", "\u{ad}".repeat(511))).as_deref(), Some("r"));
    assert_eq!(domain_text(&format!("{soft}example")), None);
    assert_eq!(local_text(&"\u{e9}".repeat(512)), None);
    assert!(local_text(&"\u{e9}".repeat(511)).is_some());
}

#[test]
fn jid_1_what_is_not_looked_at_twice_is_stable() {
    for byte in 0..=127_u8 {
        let c = char::from(byte);
        for text in [format!("a{c}b"), format!("a@b{c}"), format!("a@{c}b"), format!("{c}@b")] {
            let Ok(once) = bare(&text) else { continue };
            assert_eq!(bare(once.as_str()).as_ref(), Ok(&once), "{text:?}");
            assert!(!is_plain(&text) || once.as_str() == text, "{text:?}");
        }
    }
    assert!(!is_plain("a@xn--bcher-kva.example") && !is_plain("a@b."));
}

#[cfg(feature = "server")]
#[test]
fn jid_2_a_jid_made_elsewhere_keeps_its_localpart() {
    let made = |text: &str| account(&BareJid::new(text).unwrap()).map(|jid| jid.to_string());
    assert_eq!(made("\u{1d2c}lice@localhost"), Err(InvalidAddress));
    assert_eq!(made("\u{2665}@localhost"), Err(InvalidAddress));
    assert_eq!(made("alice@xn--bcher-kva.example").as_deref(), Ok("alice@b\u{fc}cher.example"));
    assert_eq!(made("localhost.").as_deref(), Ok("localhost"));
}

#[test]
fn jid_1_a_localpart_is_stable_whatever_it_is_made_of() {
    texts(local_text, with_letters);
}

#[test]
fn jid_1_a_domain_is_stable_whatever_it_is_made_of() {
    texts(domain_text, with_letters);
    texts(domain_text, |c| if c > '\u{323af}' { Vec::new() } else { vec![format!("{c}.z")] });
}

#[test]
fn jid_1_a_resource_is_stable_whatever_it_is_made_of() {
    texts(resource_text, with_letters);
}
