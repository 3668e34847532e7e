//! Servers of our own: on ports of their own, in folders of their own.
//!
//! `XMPP_TEST_REDIS=redis-server,/usr/bin/valkey-server` names programs, each of which is tried;
//! `XMPP_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin` the folder of PostgreSQL's. What is not named is skipped, visibly.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[cfg(feature = "ring")]
use super::certificates::Certificate;

pub(super) fn redis_programs(test: &str) -> Vec<String> {
    named(test, "XMPP_TEST_REDIS")
}

#[cfg(feature = "postgres")]
pub(super) fn postgres_folders(test: &str) -> Vec<String> {
    named(test, "XMPP_TEST_POSTGRES_BIN")
}

fn named(test: &str, variable: &str) -> Vec<String> {
    let Ok(value) = std::env::var(variable) else {
        println!("SKIPPED: {test}: {variable} is not set");
        return Vec::new();
    };
    value.split(',').map(ToOwned::to_owned).collect()
}

pub(super) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn folder() -> PathBuf {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("xmpp-session-engine-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn signal(process: &Child, name: &str) {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
    assert!(sent.success());
}

/// One of Redis, or of Valkey.
pub(super) struct RedisServer {
    program: String,
    options: Vec<String>,
    folder: PathBuf,
    pub(super) port: u16,
    process: Option<Child>,
}

impl RedisServer {
    pub(super) fn start(program: &str, options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        let (program, folder) = (program.into(), folder());
        let mut server = Self { program, options, folder, port: free_port(), process: None };
        server.begin();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One that takes TLS as well, on this port.
    #[cfg(feature = "ring")]
    pub(super) fn with_tls(program: &str, of: &Certificate) -> (Self, u16) {
        let (folder, port) = (folder(), free_port());
        let [certificate, key] = of.write(&folder).map(|file| file.to_str().unwrap().to_owned());
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", certificate.clone()),
            ("--tls-key-file", key),
            ("--tls-ca-cert-file", certificate),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let (program, options) = (program.to_owned(), options.collect());
        let mut server = Self { program, options, folder, port: free_port(), process: None };
        server.begin();
        (server, port)
    }

    /// It runs, and takes connections; it may want a password.
    pub(super) fn begin(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--dir", self.folder.to_str().unwrap(), "--save", "", "--daemonize", "no"]);
        command.args(["--logfile", "log"]).args(&self.options).stdout(Stdio::null());
        self.process = Some(command.spawn().expect("a program of Redis or Valkey"));
        eventually("it takes connections", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(super) fn signal(&self, name: &str) {
        signal(self.process.as_ref().unwrap(), name);
    }

    /// A command, by a connection of its own.
    pub(super) fn command(&self, words: &[&str]) -> String {
        let client = redis::Client::open(self.url()).unwrap();
        let value: redis::Value = eventually("it answers", || {
            let mut connection = client.get_connection().ok()?;
            let mut command = redis::cmd(words[0]);
            let value = command.arg(&words[1..]).query(&mut connection);
            Some(match value {
                Err(error) if error.is_io_error() => return None,
                other => other.unwrap_or_else(|error| panic!("{words:?}: {error}")),
            })
        });
        match value {
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            redis::Value::VerbatimString { text, .. } => text,
            value => format!("{value:?}"),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// One of PostgreSQL.
#[cfg(feature = "postgres")]
pub(super) use postgres::PostgresServer;

#[cfg(feature = "postgres")]
mod postgres {
    use std::os::unix::process::CommandExt;

    use super::*;

    pub(in super::super) struct PostgresServer {
        bin: PathBuf,
        folder: PathBuf,
        port: u16,
        process: Option<Child>,
    }

    /// It does not run as the superuser.
    fn owner() -> Option<(u32, u32)> {
        let me = fs::metadata("/proc/self").ok()?;
        if std::os::unix::fs::MetadataExt::uid(&me) != 0 {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user");
        let fields: Vec<_> = line.split(':').collect();
        Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    }

    impl PostgresServer {
        pub(in super::super) fn start(bin: &str) -> Self {
            let server = Self::new(bin);
            let data = server.data();
            server
                .run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]);
            let mut server = server;
            server.begin();
            server
        }

        /// A standby of another one, as it is now.
        pub(in super::super) fn standby_of(primary: &Self) -> Self {
            let mut server = Self::new(primary.bin.to_str().unwrap());
            let (port, data) = (primary.port.to_string(), server.data());
            let from = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
            server.run("pg_basebackup", &[&from[..], &["-D", &data, "-R", "-c", "fast"]].concat());
            server.begin();
            server
        }

        fn new(bin: &str) -> Self {
            let folder = folder();
            if let Some((user, group)) = owner() {
                std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
            }
            Self { bin: bin.into(), folder, port: free_port(), process: None }
        }

        fn data(&self) -> String {
            self.folder.join("data").to_str().unwrap().to_owned()
        }

        fn program(&self, name: &str) -> Command {
            let mut command = Command::new(self.bin.join(name));
            if let Some((user, group)) = owner() {
                command.uid(user).gid(group);
            }
            // There it looks for certificates.
            command.env("HOME", &self.folder);
            command.current_dir(&self.folder).env("LC_ALL", "C.UTF-8").stdout(Stdio::null());
            command
        }

        fn run(&self, name: &str, arguments: &[&str]) {
            let output = self.program(name).args(arguments).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }

        pub(in super::super) fn url(&self) -> String {
            format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
        }

        pub(in super::super) const fn port(&self) -> u16 {
            self.port
        }

        /// From now on it wants TLS.
        #[cfg(feature = "ring")]
        pub(in super::super) fn encrypts(&self, by: &Certificate) {
            use std::os::unix::fs::{PermissionsExt, chown};
            for file in by.write(&self.folder.join("data")) {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                if let Some((user, group)) = owner() {
                    chown(&file, Some(user), Some(group)).unwrap();
                }
            }
            self.sql("ALTER SYSTEM SET ssl = on");
            let file = self.folder.join("data/pg_hba.conf");
            fs::write(&file, "hostssl all all 127.0.0.1/32 trust\n").unwrap();
            self.sql("SELECT pg_reload_conf()");
            eventually("it encrypts", || {
                let shown = self
                    .client("psql")
                    .args(["-X", "-At", "-c", "SHOW ssl"])
                    .stdout(Stdio::piped())
                    .output()
                    .ok()?;
                shown.stdout.starts_with(b"on").then_some(())
            });
        }

        pub(in super::super) fn begin(&mut self) {
            let (data, port) = (self.data(), self.port.to_string());
            let mut command = self.program("postgres");
            command.args(["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", ""]);
            command.args(["-c", "fsync=off", "-c", "log_min_messages=panic"]);
            self.process = Some(command.stderr(Stdio::null()).spawn().expect("PostgreSQL"));
            eventually("it is ready", || {
                let mut ready = self.program("pg_isready");
                let ready = ready.args(["-h", "127.0.0.1", "-p", &port]).status().unwrap();
                ready.success().then_some(())
            });
        }

        /// At once, as in a crash; what runs for it ends as well.
        pub(in super::super) fn kill(&mut self) {
            if let Some(mut process) = self.process.take() {
                signal(&process, "QUIT");
                process.wait().unwrap();
            }
        }

        /// To it and to all that run for it.
        pub(in super::super) fn signal(&self, name: &str) {
            let pid = self.process.as_ref().unwrap().id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            let mut all: Vec<_> = children.split_whitespace().map(ToOwned::to_owned).collect();
            all.insert(0, pid.to_string());
            let _sent = Command::new("kill").arg(format!("-{name}")).args(&all).status().unwrap();
        }

        pub(in super::super) fn promote(&self) {
            self.run("pg_ctl", &["promote", "-w", "-D", &self.data()]);
        }

        /// Statements, by a connection of its own.
        pub(in super::super) fn sql(&self, statements: &str) -> String {
            let mut psql = self.client("psql");
            let output = psql
                .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", statements])
                .stdout(Stdio::piped());
            let output = output.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
    }

    impl PostgresServer {
        fn client(&self, program: &str) -> Command {
            let (mut command, port) = (self.program(program), self.port.to_string());
            command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
            command
        }

        pub(in super::super) fn dump(&self, file: &str) {
            assert!(self.client("pg_dump").args(["-f", file]).status().unwrap().success());
        }

        pub(in super::super) fn restore(&self, file: &str) {
            assert!(self.client("psql").args(["-X", "-q", "-f", file]).status().unwrap().success());
        }

        /// A transaction that has done this, and does not end before what is returned.
        pub(in super::super) fn hold(&self, statement: &str) -> Held {
            let mut psql = self.client("psql");
            let psql = psql.args(["-X", "-q"]).stdin(Stdio::piped());
            let mut child = psql.spawn().unwrap();
            let input = child.stdin.as_mut().unwrap();
            std::io::Write::write_all(input, format!("BEGIN; {statement};\n").as_bytes()).unwrap();
            Held(child)
        }

        pub(in super::super) fn asks_password_of(&self, user: &str) {
            let file = self.folder.join("data/pg_hba.conf");
            let rules = fs::read_to_string(&file).unwrap();
            let rule = format!("host all {user} 127.0.0.1/32 scram-sha-256\n{rules}");
            fs::write(&file, rule).unwrap();
            self.sql("SELECT pg_reload_conf()");
        }
    }

    pub(in super::super) struct Held(Child);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ended = (self.0.kill(), self.0.wait());
        }
    }

    impl Drop for PostgresServer {
        fn drop(&mut self) {
            if self.process.is_some() {
                self.signal("CONT");
            }
            self.kill();
            let _gone = fs::remove_dir_all(&self.folder);
        }
    }
}
