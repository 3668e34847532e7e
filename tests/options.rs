//! The command lines of the examples `server` and `web`.
#![cfg(feature = "server")]
#![expect(clippy::panic, clippy::expect_used, reason = "a test may fail by a panic")]

#[path = "../examples/server/options.rs"]
mod options;
#[path = "../examples/server/settings.rs"]
mod settings;
#[path = "../examples/web/options.rs"]
mod web;

use std::net::IpAddr;

use options::{Cluster, Command, Engine, Options, help, parse};
use settings::Level;
use xmpp_session::sasl::Mechanism;
use xmpp_session::session::Conflict;

fn command(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(String::from))
}

fn serve(line: &str) -> Options {
    match command(line) {
        Ok(Command::Serve(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    command(line).expect_err(line)
}

#[test]
fn nothing_said_is_one_loopback_address_and_one_domain() {
    let options = serve("");
    assert_eq!(options.listen, ["127.0.0.1:5222".parse().unwrap()]);
    assert!(options.direct_tls.is_empty() && options.settings.accounts.is_empty());
    assert_eq!(
        options.settings.domains.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
        ["localhost"]
    );
    assert!(options.certificate.is_none() && options.settings.mechanisms.is_none());
    assert!(options.settings.data.is_none() && options.settings.any_account.is_none());
    assert!(!options.allow_plaintext && !options.settings.no_limits);
    assert_eq!((options.settings.conflict, options.settings.log), (Conflict::Replace, Level::Info));
}

#[test]
fn everything_said() {
    let options = serve(
        "--listen [::1]:0 --listen 127.0.0.1:1 --direct-tls 0.0.0.0:2 --domain a.example --domain B.example \
         --account me@a.example:x:y]=@[z --cert c --key k --allow-plaintext \
         --clients-from f --mechanisms PLAIN,SCRAM-SHA-1 --conflict refuse --no-limits --log debug --guests --register --proxy ::1 --proxy 192.0.2.1",
    );
    assert_eq!(options.listen, ["[::1]:0".parse().unwrap(), "127.0.0.1:1".parse().unwrap()]);
    assert_eq!(options.direct_tls, ["0.0.0.0:2".parse().unwrap()]);
    assert_eq!(options.settings.domains.get(1).unwrap().as_str(), "b.example");
    let (jid, password) = options.settings.accounts.first().unwrap();
    assert_eq!((jid.as_str(), password.as_str()), ("me@a.example", "x:y]=@[z"));
    assert_eq!(serve("--any-account pw").settings.any_account.as_deref(), Some("pw"));
    assert_eq!(options.certificate, Some(("c".into(), "k".into())));
    assert_eq!(options.clients_from, Some("f".into()));
    assert_eq!(options.settings.mechanisms, Some(vec![Mechanism::Plain, Mechanism::ScramSha1]));
    assert_eq!((options.settings.conflict, options.settings.log), (Conflict::Refuse, Level::Debug));
    let proxies = ["::1", "192.0.2.1"].map(|address| address.parse::<IpAddr>().unwrap());
    assert_eq!(options.proxies, proxies);
    assert!(options.allow_plaintext && options.settings.no_limits);
    assert!(options.settings.guests && options.settings.register);
}

#[test]
fn a_websocket_has_a_listener() {
    let line = "--websocket 127.0.0.1:5280";
    if cfg!(feature = "websocket") {
        let options = serve(line);
        assert_eq!(options.websocket, ["127.0.0.1:5280".parse().unwrap()]);
        assert!(options.listen.is_empty());
        assert!(error("--websocket 0.0.0.0:5280 --allow-plaintext").contains("loopback only"));
    } else {
        assert!(error(line).contains("features tokio,websocket"));
    }
}

#[test]
fn jid_3_domains_and_accounts_have_one_spelling() {
    let options = serve(
        "--domain xn--bcher-kva.example --domain LocalHost. --account Me@B\u{fc}cher.example.:x \
         --account me@localhost:y",
    );
    let domains: Vec<_> = options.settings.domains.iter().map(|one| one.as_str()).collect();
    assert_eq!(domains, ["b\u{fc}cher.example", "localhost"]);
    let accounts: Vec<_> = options.settings.accounts.iter().map(|(jid, _)| jid.as_str()).collect();
    assert_eq!(accounts, ["me@b\u{fc}cher.example", "me@localhost"]);
    error("--account \u{1d2c}lice@localhost:x");
    error("--domain \u{1806}");
}

#[test]
fn accounts_come_from_a_file_with_the_line_that_is_wrong() {
    let file = std::env::temp_dir().join(format!("xmpp-session-options-{}", std::process::id()));
    let name = file.display();
    std::fs::write(&file, "one@localhost a b\n\ntwo@localhost c\n").unwrap();
    let options = serve(&format!("--accounts {name}"));
    let passwords: Vec<_> =
        options.settings.accounts.iter().map(|(_, password)| password.as_str()).collect();
    assert_eq!(passwords, ["a b", "c"]);
    std::fs::write(&file, "one@localhost a\ntwo@localhost\n").unwrap();
    let error = error(&format!("--accounts {name}"));
    std::fs::remove_file(&file).unwrap();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn what_is_wrong_is_told_with_what_would_be_right() {
    let cases = [
        ("--lsiten 127.0.0.1:1", "--help"),
        ("romeo", "--help"),
        ("--listen", "ADDR:PORT"),
        ("--listen localhost:5222", "127.0.0.1:5222"),
        ("--direct-tls 1.2.3.4", "127.0.0.1:5222"),
        ("--proxy 127.0.0.1:80", "127.0.0.1 or ::1"),
        ("--domain a@b", "example.com"),
        ("--account romeo@localhost", "PASSWORD"),
        ("--account romeo@localhost:", "PASSWORD"),
        ("--account localhost:x", "user name"),
        ("--account romeo@localhost/there:x", "romeo@example.com"),
        ("--account romeo@example.org:x", "--domain example.org"),
        ("--accounts /nonexistent/file", "/nonexistent/file"),
        ("--any-account x --account romeo@localhost:y", "--any-account"),
        ("--cert a", "--key"),
        ("--key a", "--cert"),
        ("--mechanisms PLAIN,NTLM", "SCRAM-SHA-256-PLUS"),
        ("--conflict maybe", "replace, override or refuse"),
        ("--log loud", "off, error, info or debug"),
        ("--adduser a@localhost:b", "--data"),
        ("--allow-plaintext --listen 0.0.0.0:5222", "loopback"),
        ("--allow-plaintext --listen [::]:5222", "loopback"),
    ];
    for (line, right) in cases {
        let error = error(line);
        assert!(error.contains(right), "{line}: {error}");
    }
    // Whoever begins with TLS is secure anyway.
    serve("--allow-plaintext --listen 127.0.0.1:1 --direct-tls 0.0.0.0:2");
}

#[test]
fn no_error_shows_a_password() {
    for line in ["--account romeo@localhost/x:pencil", "--account @:pencil", "--adduser x:pencil"] {
        assert!(!error(line).contains("pencil"));
    }
}

#[test]
fn a_user_is_added_to_a_file() {
    if cfg!(not(feature = "sqlite")) {
        assert!(error("--data d").contains("--features tokio,sqlite"));
        return;
    }
    assert_eq!(serve("--data d").settings.data, Some("d".into()));
    let Ok(Command::AddUser(file, (jid, password))) = command("--adduser a@[::1]:b:c --data d")
    else {
        panic!("not to be added");
    };
    assert_eq!((file.to_str(), jid.as_str(), &*password), (Some("d"), "a@[::1]", "b:c"));
}

#[test]
fn data_may_be_a_database() {
    let url = "postgres://xmpp:pencil@db.example/xmpp";
    if cfg!(not(feature = "postgres")) {
        let error = error(&format!("--data {url}"));
        assert!(error.contains("--features tokio,postgres") && !error.contains("pencil"));
        return;
    }
    let settings = serve(&format!("--data {url} --secret s")).settings;
    assert_eq!((settings.data, settings.secret), (Some(url.into()), Some("s".into())));
}

#[test]
fn a_node_has_a_name_and_a_database_that_all_share() {
    let (data, cluster) = ("--data postgres://db.example/xmpp", "--cluster redis://a:1,rediss://b");
    if cfg!(not(all(feature = "redis", feature = "postgres"))) {
        let error = error(&format!("{cluster} --node one"));
        assert!(error.contains("--features tokio,redis,postgres"));
        return;
    }
    assert_eq!(serve("").cluster, None);
    let node = |more: &str| serve(&format!("{cluster} --node one {data} {more}")).cluster.unwrap();
    let urls = "redis://a:1,rediss://b".to_owned();
    let (engine, node_name) = (Engine::Redis, "one".to_owned());
    assert_eq!(node(""), Cluster { urls, engine, node: node_name, name: None, other_host: None });
    assert_eq!(node("--cluster-name test").name.as_deref(), Some("test"));
    assert_eq!(node("--engine postgres").engine, Engine::Postgres);
    let places = [
        ("two.example.com", ("two.example.com", None)),
        ("two.example.com:5223", ("two.example.com", Some(5223))),
        ("127.0.0.1:1", ("127.0.0.1", Some(1))),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:2", ("::1", Some(2))),
    ];
    for (text, (host, port)) in places {
        let other_host = node(&format!("--see-other-host {text}")).other_host;
        assert_eq!(other_host, Some((host.to_owned(), port)), "{text}");
    }
    let cases = [
        (cluster.to_owned(), "--node"),
        ("--node one".to_owned(), "--cluster"),
        ("--engine redis".to_owned(), "--cluster"),
        ("--see-other-host a.example".to_owned(), "--cluster"),
        ("--cluster-name test".to_owned(), "--cluster"),
        (format!("{cluster} --node one"), "--data postgres://"),
        (format!("{cluster} --node one --data file.db"), "--data postgres://"),
        (format!("{cluster} --node one --engine postgres"), "--data postgres://"),
        (format!("{cluster} --node one {data} --engine etcd"), "redis or postgres"),
        (format!("{cluster} --node one {data} --see-other-host a:b"), "two.example.com:5222"),
        (format!("{cluster} --node one {data} --see-other-host ::1:70000"), "two.example.com:5222"),
        (format!("--cluster 127.0.0.1:6379 --node one {data}"), "redis://HOST:PORT"),
        (format!("--cluster redis://a,http://:pencil@b --node one {data}"), "redis://HOST:PORT"),
    ];
    for (line, right) in cases {
        let error = error(&line);
        assert!(error.contains(right) && !error.contains("pencil"), "{line}: {error}");
    }
}

#[test]
fn options_may_be_in_a_file() {
    let file = std::env::temp_dir().join(format!("options-{}", std::process::id()));
    let path = file.display();
    std::fs::write(
        &file,
        "# of all nodes\n\n--domain  a.example\n--no-limits\n  --any-account two words \n",
    )
    .unwrap();
    let options = serve(&format!("--domain b.example --options {path} --listen 127.0.0.1:1"));
    let domains: Vec<_> = options.settings.domains.iter().map(|one| one.as_str()).collect();
    assert_eq!(domains, ["b.example", "a.example"]);
    assert_eq!(options.settings.any_account.as_deref(), Some("two words"));
    assert_eq!(options.listen, ["127.0.0.1:1".parse().unwrap()]);
    for (text, right) in [
        ("--domains a.example", "--domains"),
        ("domain a.example", "--domain example.com"),
        ("--domain\n--no-limits", "--domain wants"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = error(&format!("--options {path}"));
        assert!(error.contains(right), "{text}: {error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(error(&format!("--options {path}")).contains(&file.display().to_string()));
    assert!(error("--options").contains("a file"));
}

#[test]
fn help_names_every_option() {
    assert!(matches!(command("--help"), Ok(Command::Help)));
    assert!(matches!(web::parse(["--help".into()]), Ok(None)));
    let settings = include_str!("../examples/server/settings.rs");
    let examples = [
        (include_str!("../examples/server/options.rs"), help(), 16),
        (include_str!("../examples/web/options.rs"), web::help(), 7),
    ];
    for (source, help, own) in examples {
        let arms = |source: &'static str| source.split("\n            \"--").skip(1);
        let names = arms(source).chain(arms(settings)).filter_map(|rest| rest.split('"').next());
        let unnamed = names.clone().find(|name| !help.contains(&format!("--{name}")));
        assert_eq!((unnamed, names.count()), (None, own + 12));
    }
    assert_eq!(serve("--metrics 127.0.0.1:9").metrics, Some("127.0.0.1:9".parse().unwrap()));
    assert!(error("--metrics 9100").contains("127.0.0.1:5222"));
}

fn serve_web(line: &str) -> web::Options {
    match web::parse(line.split_whitespace().map(String::from)) {
        Ok(Some(options)) => options,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_web_example_is_on_loopback_unless_told_otherwise() {
    let options = serve_web("--account me@localhost:x");
    assert_eq!(options.listen, "127.0.0.1:8080".parse().unwrap());
    assert!(options.is_protected() && !options.secure && options.operator_token.is_none());
    assert!(options.origins.is_empty() && options.files.is_none());
    assert!(options.operator().contains("this machine alone"));
    assert_eq!(options.settings.accounts.len(), 1);
    let options = serve_web(
        "--listen 0.0.0.0:80 --secure --origin HTTPS://Chat.example.com --origin http://[::1]:8080 \
         --operator-token 0123456789abcdef --files d",
    );
    assert!(options.is_protected() && options.secure);
    assert_eq!(options.origins, ["https://chat.example.com", "http://[::1]:8080"]);
    assert_eq!(options.operator_token.as_deref(), Some("0123456789abcdef"));
    assert_eq!(options.files, Some("d".into()));
    assert!(options.operator().contains("whoever has the token"));
    assert!(serve_web("--secure").operator().contains("closed"));
    assert!(!serve_web("--listen 0.0.0.0:80 --allow-plaintext").is_protected());
}

#[test]
fn what_is_wrong_for_the_web_example_is_told() {
    let cases = [
        ("--listen 0.0.0.0:80", "--secure"),
        ("--listen 8080", "127.0.0.1:5222"),
        ("--listen 0.0.0.0:80 --secure --allow-plaintext", "exclude"),
        ("--origin chat.example.com", "https://chat.example.com"),
        ("--origin https://chat.example.com/", "https://chat.example.com"),
        ("--origin *", "https://chat.example.com"),
        ("--operator-token secret", "16"),
        ("--operator-token 0123456789abcde;", "letters"),
        ("--direct-tls 127.0.0.1:1", "--help"),
        ("--account romeo@example.org:x", "--domain example.org"),
    ];
    for (line, right) in cases {
        let error = web::parse(line.split_whitespace().map(String::from)).expect_err(line);
        assert!(error.contains(right), "{line}: {error}");
    }
}

/// The README shows the example as it is.
#[test]
fn the_small_server_is_that_of_the_readme() {
    let small = include_str!("../examples/small.rs");
    let code = small.split_once("#![forbid(unsafe_code)]\n\n").expect("the head of a file").1;
    assert!(include_str!("../README.md").contains(code), "{code}");
    assert!(small.lines().count() <= 40);
}
