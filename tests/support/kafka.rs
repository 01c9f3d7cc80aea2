//! Real Apache Kafka brokers for tests and benches: fetched with Maven, one or several of them, in KRaft mode.
//!
//! A cluster lives in a temporary folder on free ports and goes with the value, or with the process that made it: a
//! watchdog ends the brokers of a test that died. `KAFKA_BROKERS` names an existing cluster for tests that need no
//! more than one plain broker.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

const VERSION: &str = "4.3.1";
/// The user of the secure listeners, and its password.
pub const USER: &str = "tol";
pub const PASSWORD: &str = "a plain pass-word";

/// How a cluster is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One broker without any security.
    One,
    /// Three brokers without any security.
    Three,
    /// One broker with listeners for SASL_SSL, SSL with client certificates, and SASL_PLAINTEXT.
    Secure,
}

/// The listeners of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Plain,
    SaslSsl,
    MutualSsl,
    SaslPlain,
}

struct Broker {
    folder: PathBuf,
    memory: &'static str,
    plain: u16,
    secure: Option<[u16; 3]>,
    child: Option<Child>,
}

/// A running cluster.
pub struct Cluster {
    brokers: Vec<Broker>,
    library: PathBuf,
    /// The cluster's own name; none of one that was there before.
    name: String,
    folder: Option<tempfile::TempDir>,
    existing: Option<String>,
}

/// One broker: that of `KAFKA_BROKERS`, or one that is started. None, loudly, if there is no way to have one.
pub fn one_broker() -> Option<Cluster> {
    match std::env::var("KAFKA_BROKERS") {
        Ok(brokers) if !brokers.is_empty() => {
            let library = library().unwrap_or_default();
            Some(Cluster { brokers: Vec::new(), library, name: String::new(), folder: None, existing: Some(brokers) })
        }
        _ => start(Kind::One),
    }
}

/// A cluster of its own. None, loudly, if there is no way to have one.
///
/// # Panics
/// With `CI=true` where there is none, and if a broker does not come up.
pub fn start(kind: Kind) -> Option<Cluster> {
    match library() {
        Ok(library) => Some(Cluster::start(kind, library)),
        Err(why) => {
            assert!(!is_ci(), "Kafka cannot be had: {why}");
            eprintln!("SKIPPED: no Kafka broker: {why}");
            None
        }
    }
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The folder of Kafka's jars, fetched once for all tests that share a target folder.
fn library() -> Result<PathBuf, String> {
    let found = |program: &str, argument: &str| {
        let status = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !found("java", "-version") {
        return Err("`java` (17 or later) is not installed".to_owned());
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .ok_or_else(|| format!("{} is in no target folder", program.display()))?;
    let folder = target.join(format!("kafka-{VERSION}"));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let lock = File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let library = folder.join("lib");
    if library.exists() {
        return Ok(library);
    }
    if !found("mvn", "-v") {
        return Err("`mvn` is not installed, and Kafka has not been fetched before".to_owned());
    }
    let dependency = |group: &str, name: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        )
    };
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>{}{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.slf4j", "slf4j-nop", "1.7.36"),
    );
    std::fs::write(folder.join("pom.xml"), pom).map_err(|error| error.to_string())?;
    // Into another folder first, so that a fetch that was cut short is not taken for the whole.
    let coming = folder.join("coming");
    let _ = std::fs::remove_dir_all(&coming);
    let output = Command::new("mvn")
        .current_dir(&folder)
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", coming.display()))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("mvn could not fetch Kafka {VERSION}: {}", String::from_utf8_lossy(&output.stdout)));
    }
    std::fs::rename(&coming, &library).map_err(|error| error.to_string())?;
    Ok(library)
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let open: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    std::array::from_fn(|index| open[index].local_addr().expect("an address").port())
}

impl Cluster {
    fn start(kind: Kind, library: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("tol-kafka-").tempdir().expect("a temporary folder");
        if kind == Kind::Secure {
            write_certificates(folder.path());
        }
        let count = if kind == Kind::Three { 3 } else { 1 };
        let memory = if kind == Kind::Three { "384m" } else { "768m" };
        let controllers: Vec<u16> = (0..count).map(|_| free_ports::<1>()[0]).collect();
        let mut brokers = Vec::new();
        let id = random_id();
        for (index, controller) in controllers.iter().enumerate() {
            let [plain, one, two, three] = free_ports();
            let secure = (kind == Kind::Secure).then_some([one, two, three]);
            let broker =
                Broker { folder: folder.path().join(format!("broker-{index}")), memory, plain, secure, child: None };
            std::fs::create_dir_all(&broker.folder).expect("a folder can be made");
            broker.write_properties(index + 1, *controller, &controllers, folder.path());
            broker.format(&library, &id);
            brokers.push(broker);
        }
        let mut cluster = Self { brokers, library, name: id, folder: Some(folder), existing: None };
        for index in 0..count {
            cluster.launch(index);
        }
        for index in 0..count {
            cluster.wait_until_up(index);
        }
        cluster
    }

    /// The brokers' addresses, as `KAFKA_BROKERS` names them.
    pub fn brokers(&self) -> String {
        self.addresses(Listener::Plain)
    }

    /// True if the cluster was there before.
    pub fn is_existing(&self) -> bool {
        self.existing.is_some()
    }

    /// The addresses of one kind of listener.
    pub fn addresses(&self, listener: Listener) -> String {
        if let Some(existing) = &self.existing {
            return existing.clone();
        }
        let port = |broker: &Broker| match (listener, broker.secure) {
            (Listener::Plain, _) | (_, None) => broker.plain,
            (Listener::SaslSsl, Some(ports)) => ports[0],
            (Listener::MutualSsl, Some(ports)) => ports[1],
            (Listener::SaslPlain, Some(ports)) => ports[2],
        };
        let each: Vec<String> = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", port(broker))).collect();
        each.join(",")
    }

    /// A file of the certificates: `ca.pem`, `other-ca.pem`, `client.pem`, `client.key`.
    pub fn file(&self, name: &str) -> String {
        let folder = self.folder.as_ref().expect("a cluster of its own");
        folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn launch(&mut self, index: usize) {
        let broker = &mut self.brokers[index];
        let log = File::create(broker.folder.join("out.log")).expect("a file can be made");
        let child = java(&self.library, broker.memory)
            .arg("kafka.Kafka")
            .arg(broker.folder.join("server.properties"))
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("java starts");
        // The broker must not outlive a test that dies before it can stop it.
        let script = "while kill -0 \"$1\" 2>/dev/null && kill -0 \"$2\" 2>/dev/null; do sleep 1; done; \
                      kill -0 \"$1\" 2>/dev/null || { kill -9 \"$2\"; rm -rf \"$3\"; } 2>/dev/null";
        let mut watch = Command::new("sh")
            .args(["-c", script, "watch"])
            .args([std::process::id().to_string(), child.id().to_string()])
            .arg(broker.folder.parent().expect("the cluster's folder"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        // It ends with the broker; nobody else waits for it.
        std::thread::spawn(move || watch.wait());
        broker.child = Some(child);
    }

    fn wait_until_up(&mut self, index: usize) {
        let broker = &mut self.brokers[index];
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", broker.plain)).is_err() {
            let ended = broker.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let log = || std::fs::read_to_string(broker.folder.join("out.log")).unwrap_or_default();
            assert!(ended.is_none(), "a broker ended with {ended:?}:\n{}", log());
            assert!(began.elapsed() < Duration::from_secs(90), "a broker does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills a broker, as a machine that goes away.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.brokers[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Takes all data of a broker that was killed: it will come back empty at the same address, as the cluster that it was
    /// or as another.
    pub fn wipe(&mut self, index: usize, as_another: bool) {
        let broker = &self.brokers[index];
        assert!(broker.child.is_none(), "it still runs");
        std::fs::remove_dir_all(broker.folder.join("data")).expect("its data can be removed");
        let another = random_id();
        broker.format(&self.library, if as_another { &another } else { &self.name });
    }

    /// Starts a broker again that was killed, with the data that it has.
    pub fn restart(&mut self, index: usize) {
        self.launch(index);
        self.wait_until_up(index);
    }

    /// Runs one of Kafka's own tools: `org.apache.kafka.tools.TopicCommand` and the like.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Output {
        java(&self.library, "256m").arg(class).args(arguments).output().expect("java starts")
    }

    /// What a tool printed, once it succeeded.
    ///
    /// # Panics
    /// If it did not.
    pub fn tool_text(&self, class: &str, arguments: &[&str]) -> String {
        let output = self.tool(class, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{class}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.brokers.len() {
            self.kill(index);
        }
    }
}

fn java(library: &Path, memory: &str) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{memory}"))
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(library.join("*"))
        .stdin(Stdio::null());
    command
}

/// A cluster's name: 16 bytes in URL-safe base 64.
fn random_id() -> String {
    let bytes = tempfile::Builder::new().rand_bytes(22).prefix("").tempdir().expect("a temporary folder");
    let name = bytes.path().file_name().expect("a name").to_string_lossy().into_owned();
    // The last of 22 digits holds two bits only.
    format!("{}A", &name[..21])
}

impl Broker {
    fn write_properties(&self, id: usize, controller: u16, controllers: &[u16], cluster: &Path) {
        let voters: Vec<String> =
            controllers.iter().enumerate().map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1)).collect();
        let mut listeners =
            vec![format!("PLAIN://127.0.0.1:{}", self.plain), format!("CONTROLLER://127.0.0.1:{controller}")];
        let mut map = vec!["PLAIN:PLAINTEXT".to_owned(), "CONTROLLER:PLAINTEXT".to_owned()];
        let mut more = String::new();
        if let Some([sasl_ssl, mutual, sasl_plain]) = self.secure {
            for (name, port, protocol) in
                [("SECURE", sasl_ssl, "SASL_SSL"), ("MUTUAL", mutual, "SSL"), ("SASL", sasl_plain, "SASL_PLAINTEXT")]
            {
                listeners.push(format!("{name}://127.0.0.1:{port}"));
                map.push(format!("{name}:{protocol}"));
            }
            for name in ["secure", "sasl"] {
                more.push_str(&format!(
                    "listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
                     listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
                     required user_{USER}=\"{PASSWORD}\";\n"
                ));
                for mechanism in ["scram-sha-256", "scram-sha-512"] {
                    more.push_str(&format!(
                        "listener.name.{name}.{mechanism}.sasl.jaas.config=\
                         org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
                    ));
                }
            }
            let folder = cluster.display();
            more.push_str(&format!(
                "ssl.keystore.type=PEM\nssl.keystore.location={folder}/server.pem\nssl.truststore.type=PEM\n\
                 ssl.truststore.location={folder}/ca.pem\nlistener.name.mutual.ssl.client.auth=required\n"
            ));
        }
        let replicas = controllers.len();
        let advertised: Vec<&str> =
            listeners.iter().map(String::as_str).filter(|listener| !listener.starts_with("CONTROLLER")).collect();
        let text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\nlisteners={}\n\
             advertised.listeners={}\nlistener.security.protocol.map={}\ninter.broker.listener.name=PLAIN\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\noffsets.topic.replication.factor={replicas}\n\
             offsets.topic.num.partitions=5\ntransaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n{more}",
            voters.join(","),
            listeners.join(","),
            advertised.join(","),
            map.join(","),
            self.folder.join("data").display(),
        );
        std::fs::write(self.folder.join("server.properties"), text).expect("a file can be written");
    }

    fn format(&self, library: &Path, id: &str) {
        let mut command = java(library, "256m");
        command.args(["kafka.tools.StorageTool", "format", "-t", id, "-c"]).arg(self.folder.join("server.properties"));
        if self.secure.is_some() {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                command.args(["--add-scram", &format!("{mechanism}=[name={USER},password=\"{PASSWORD}\"]")]);
            }
        }
        let output = command.output().expect("java starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "format: {}\n{}", text(&output.stdout), text(&output.stderr));
    }
}

/// An authority, a broker's certificate of it, a client's, and an authority that nobody knows.
fn write_certificates(folder: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), Issuer::new(params, key))
    };
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file can be written");
    let (ca, issuer) = authority("tests");
    write("ca.pem", &ca);
    write("other-ca.pem", &authority("others").0);
    let signed = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names =
            vec![SanType::IpAddress([127, 0, 0, 1].into()), SanType::DnsName("localhost".try_into().expect("a name"))];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate, key) = signed("broker");
    write("server.pem", &format!("{key}{certificate}{ca}"));
    let (certificate, key) = signed("client");
    write("client.pem", &certificate);
    write("client.key", &key);
}
