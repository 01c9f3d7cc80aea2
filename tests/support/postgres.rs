//! A real PostgreSQL for tests: found in the system, started by the test itself on a free port, stopped with it.
//!
//! `DATABASE_URL` points the tests at a server that runs already. Where none can be had the tests say `SKIPPED`; with
//! `CI=true` the server is installed, and to have none is a failure.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where distributions put the server's programs.
const ROOMS: [&str; 3] = ["/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt"];

/// A server of this test process's own.
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    /// A shell that stops the server when its input ends, that is, when this process ends in whatever way.
    watchdog: Option<Child>,
}

/// A database that is dropped with this.
pub struct TestDatabase {
    pub url: String,
    admin: String,
    name: String,
}

/// A fresh database on the server that all tests of the process share; `None` (told loudly) if there is no server.
pub fn database() -> Option<TestDatabase> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    static GIVEN: OnceLock<Option<String>> = OnceLock::new();
    let given = GIVEN.get_or_init(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()));
    match given {
        Some(url) => Some(TestDatabase::create(url)),
        None => Some(SHARED.get_or_init(|| Server::start(true)).as_ref()?.database()),
    }
}

/// A server that a test may stop and start again; `None` (told loudly) if there is no program for it.
pub fn own_server() -> Option<Server> {
    Server::start(false)
}

fn programs() -> Option<PathBuf> {
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let versions = ROOMS.iter().flat_map(|room| {
        let mut found: Vec<PathBuf> =
            fs::read_dir(room).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
        found.sort();
        found.reverse();
        found
    });
    versions.chain(in_path).find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

fn programs_or_skip() -> Option<PathBuf> {
    if let Some(found) = programs() {
        return Some(found);
    }
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    if must {
        for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "postgresql"][..]] {
            let done = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
            eprintln!("apt-get {}: {done:?}", arguments.join(" "));
        }
        let found = programs();
        assert!(found.is_some(), "with CI=true the tests need PostgreSQL, and it could not be installed");
        return found;
    }
    eprintln!("SKIPPED: there is no PostgreSQL here (no initdb in PATH or in /usr/lib/postgresql) and no DATABASE_URL");
    None
}

/// The account that the server runs as, when this process is root: the server refuses root.
fn account() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    if !is_root {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let account = ["postgres", "nobody"].iter().find_map(|name| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(account.expect("an account `postgres` or `nobody` in /etc/passwd"))
}

fn as_account(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

impl Server {
    fn start(shared: bool) -> Option<Self> {
        let programs = programs_or_skip()?;
        let folder = tempfile::Builder::new().prefix("tol-postgres-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((user, group)) = account() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let data = folder.join("data");
        let done = as_account(&programs.join("initdb"))
            .args(["--username=tol", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        certificates(&data);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { programs, folder, port, watchdog: None };
        server.begin(shared);
        Some(server)
    }

    fn begin(&mut self, shared: bool) {
        let script = "program=$1; shift; \"$program\" \"$@\" </dev/null >>\"$LOG\" 2>&1 & pid=$!; \
                      cat >/dev/null; kill -INT $pid 2>/dev/null; wait $pid; \
                      if [ -n \"$REMOVE\" ]; then rm -rf \"$REMOVE\"; fi";
        let mut command = as_account(Path::new("/bin/sh"));
        command.args(["-c", script, "watchdog"]).arg(self.programs.join("postgres")).arg("-D");
        command.arg(self.folder.join("data"));
        for setting in [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.folder.display()),
            "listen_addresses=127.0.0.1".to_owned(),
            "max_connections=200".to_owned(),
            "fsync=on".to_owned(),
            "ssl=on".to_owned(),
            "shared_buffers=64MB".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        command
            .env("LOG", self.folder.join("log"))
            .env("REMOVE", if shared { self.folder.as_os_str() } else { "".as_ref() });
        command.stdin(Stdio::piped()).current_dir("/").process_group(0);
        self.watchdog = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match run_sql(&self.url("postgres"), "SELECT 1") {
                Ok(()) => return,
                Err(error) if Instant::now() > until => {
                    let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    panic!("the server does not start: {error}\n{log}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The address of one of its databases.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://tol@127.0.0.1:{}/{name}", self.port)
    }

    /// A fresh database.
    pub fn database(&self) -> TestDatabase {
        TestDatabase::create(&self.url("postgres"))
    }

    /// The certificate of the authority that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.crt")
    }

    /// The process number of the server.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// Ends the server as a power cut would: no connection is told, nothing is tidied up.
    pub fn crash(&mut self) {
        let pid = self.pid().to_string();
        // The immediate shutdown: like `kill -9`, but it takes the server's children along.
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        self.wait();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        assert!(self.watchdog.is_none());
        self.begin(false);
    }

    fn wait(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            watchdog.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl TestDatabase {
    fn create(admin: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tol_test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        run_sql(admin, &format!("CREATE DATABASE {name}")).unwrap();
        let (stem, query) =
            admin.split_once('?').map_or((admin, String::new()), |(stem, query)| (stem, format!("?{query}")));
        let (server, _) = stem.rsplit_once('/').expect("a database in DATABASE_URL");
        Self { url: format!("{server}/{name}{query}"), admin: admin.to_owned(), name }
    }

    /// Runs statements in it.
    pub fn run(&self, sql: &str) {
        run_sql(&self.url, sql).unwrap();
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A server that is gone has taken the database with it.
        let _ = run_sql(&self.admin, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// Runs statements, from inside a runtime as well.
fn run_sql(url: &str, sql: &str) -> Result<(), String> {
    std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (client, connection) =
                    tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
                let driven = tokio::spawn(connection);
                let done = client.batch_execute(sql).await.map_err(|error| format!("{error:?}"));
                drop(client);
                let _ = driven.await;
                done
            })
        };
        scope.spawn(work).join().unwrap()
    })
}

/// An authority and a certificate of it for `localhost` and 127.0.0.1, where the server looks for them.
fn certificates(data: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap();
    fs::write(data.join("authority.crt"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = rcgen::CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    fs::write(data.join("server.crt"), signed.pem()).unwrap();
    fs::write(data.join("server.key"), own.serialize_pem()).unwrap();
    fs::set_permissions(data.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = account() {
        chown(data.join("server.key"), Some(user), Some(group)).unwrap();
    }
    // Others must be able to read the authority: the folder itself is closed to them.
    fs::copy(data.join("authority.crt"), data.with_file_name("authority.crt")).unwrap();
}
