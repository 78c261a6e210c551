//! The flexible server: a real MySQL-compatible server, met over TLS as a service meets it.

use aksim::{
    database::{Credentials, Database, DatabaseConfig, EngineChoice, SchemaSpec},
    model::advice::{Advice, ExitClass},
    model::event::{ComponentState, FlowRow},
    runtime::{
        component::{Component, RunContext, readiness},
        pki::Pki,
        recorder::Recorder,
    },
};
use mysql_async::{Conn, OptsBuilder, SslOpts, prelude::Queryable};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

struct Running {
    address: SocketAddr,
    ca: PathBuf,
    catalog: Credentials,
    orders: Credentials,
    admin: Credentials,
    state: PathBuf,
    recorder: Recorder,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

/// One template for all tests, as all environments of a user share one.
fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("database-cache")
}

fn config(dir: &Path) -> DatabaseConfig {
    let pki = Pki::open(&dir.join("pki"), "aksim test").unwrap();
    let schema = |name: &str| SchemaSpec { schema: name.into(), user: name.into() };
    DatabaseConfig {
        schemas: vec![schema("catalog"), schema("orders")],
        ..DatabaseConfig::new(dir.join("database"), cache(), pki, "shopdb")
    }
}

async fn start(dir: &Path) -> Running {
    let config = config(dir);
    let (ca, state) = (config.pki.ca_path().to_owned(), config.state_dir.clone());
    let database = Database::bind(config).await.unwrap_or_else(|error| {
        panic!("{error}\nhint: {}", error.hint().unwrap_or_default());
    });
    let (stop, recorder) = (CancellationToken::new(), Recorder::in_memory());
    let (signal, mut ready) = readiness();
    let context = RunContext { shutdown: stop.clone(), readiness: signal, recorder: recorder.clone() };
    let mut running = Running {
        address: database.address(),
        ca,
        catalog: database.credentials("catalog").unwrap(),
        orders: database.credentials("orders").unwrap(),
        admin: database.admin(),
        state,
        recorder,
        stop,
        tasks: tokio::task::JoinSet::new(),
    };
    running.tasks.spawn(async move { Box::new(database).run(context).await.unwrap() });
    tokio::select! {
        ready = ready.wait() => assert!(ready),
        ended = running.tasks.join_next() => panic!("the server ended: {ended:?}"),
    }
    running
}

impl Running {
    fn options(&self, user: &Credentials) -> OptsBuilder {
        let tls = SslOpts::default()
            .with_root_certs(vec![self.ca.clone().into()])
            .with_disable_built_in_roots(true)
            .with_danger_tls_hostname_override(Some(user.host.clone()));
        self.plain(user).ssl_opts(tls)
    }
    fn plain(&self, user: &Credentials) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname(self.address.ip().to_string())
            .tcp_port(self.address.port())
            .prefer_socket(false)
            .user(Some(&user.user))
            .pass(Some(&user.password))
            .db_name(Some(&user.database).filter(|name| !name.is_empty()))
    }
    async fn connect(&self, user: &Credentials) -> Conn {
        Conn::new(self.options(user)).await.unwrap()
    }
    fn server_pid(&self) -> i32 {
        pid(&self.state)
    }
    /// Waits until the server serves again after `event`.
    async fn ready_after(&self, seq: u64) {
        let mut world = self.recorder.watch();
        let ready = world.wait_for(|world| {
            let database = world.components.values().next();
            world.seq > seq && database.is_some_and(|d| d.state == ComponentState::Ready)
        });
        tokio::time::timeout(DEADLINE, ready).await.expect("the server is not restarted").unwrap();
    }
    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn pid(state: &Path) -> i32 {
    let content = std::fs::read_to_string(state.join("server.pid")).unwrap();
    content.split(' ').next().unwrap().parse().unwrap()
}

/// Whether a process runs; one that has ended and that nobody has reaped has no command line.
fn is_running(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn server_code(error: &mysql_async::Error) -> u16 {
    match error {
        mysql_async::Error::Server(error) => error.code,
        other => panic!("not an error of the server: {other}"),
    }
}

#[tokio::test]
async fn tls_is_required_and_users_see_their_own_schema_alone() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    assert_eq!(running.catalog.host, "shopdb.mysql.database.azure.com");
    let mut catalog = running.connect(&running.catalog).await;
    let cipher: Option<(String, String)> = catalog.query_first("SHOW STATUS LIKE 'Ssl_cipher'").await.unwrap();
    assert_ne!(cipher.unwrap().1, "");
    catalog.query_drop("CREATE TABLE products (name VARCHAR(40) PRIMARY KEY)").await.unwrap();
    catalog.query_drop("INSERT INTO products VALUES ('käse 🧀')").await.unwrap();
    let name: Option<String> = catalog.query_first("SELECT name FROM products").await.unwrap();
    assert_eq!(name.as_deref(), Some("käse 🧀"));

    let plain = Conn::new(running.plain(&running.catalog)).await.unwrap_err();
    assert!([1045, 3159].contains(&server_code(&plain)), "{plain}");
    let mut orders = running.connect(&running.orders).await;
    let foreign = orders.query_drop("SELECT * FROM catalog.products").await.unwrap_err();
    assert_eq!(server_code(&foreign), 1142);
    let databases: Vec<String> = orders.query("SHOW DATABASES").await.unwrap();
    assert!(databases.contains(&"orders".to_owned()) && !databases.contains(&"catalog".to_owned()), "{databases:?}");
    let wrong = Credentials { password: "wrong".into(), ..running.orders.clone() };
    assert_eq!(server_code(&Conn::new(running.options(&wrong)).await.unwrap_err()), 1045);
    let root = Credentials { user: "root".into(), password: String::new(), ..running.admin.clone() };
    assert_eq!(server_code(&Conn::new(running.options(&root)).await.unwrap_err()), 1045);
    let mut admin = running.connect(&running.admin).await;
    let seen: Option<u64> = admin.query_first("SELECT COUNT(*) FROM catalog.products").await.unwrap();
    assert_eq!(seen, Some(1));
    let file = admin.query_drop("SELECT 1 INTO OUTFILE '/tmp/aksim-must-not-exist'").await.unwrap_err();
    assert!([1045, 1227].contains(&server_code(&file)), "{file}");
    assert!(running.recorder.world().flow[&FlowRow::Store].message.contains("stands in for Azure Database for MySQL"));
    running.stop().await;
}

#[tokio::test]
async fn parameters_are_azures() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let mut admin = running.connect(&running.admin).await;
    for (name, value) in [
        ("character_set_server", "utf8mb4"),
        ("lower_case_table_names", "1"),
        ("max_connections", "171"),
        ("require_secure_transport", "1"),
        ("system_time_zone", "UTC"),
        ("time_zone", "SYSTEM"),
    ] {
        let found: Option<String> = admin.query_first(format!("SELECT @@{name}")).await.unwrap();
        assert_eq!(found.as_deref(), Some(value), "{name}");
    }
    let mode: Option<String> = admin.query_first("SELECT @@GLOBAL.sql_mode").await.unwrap();
    let mode = mode.unwrap();
    for wanted in ["STRICT_TRANS_TABLES", "ONLY_FULL_GROUP_BY", "NO_ZERO_DATE"] {
        assert!(mode.contains(wanted), "{mode}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_killed_server_is_restarted_and_every_acknowledged_row_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let mut first = running.connect(&running.orders).await;
    first.query_drop("CREATE TABLE orders (id BIGINT PRIMARY KEY, note TEXT)").await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 1..=3u64 {
        let (options, count) = (running.options(&running.orders), acknowledged.clone());
        let from = count.load(Ordering::SeqCst);
        let writer = async move {
            let mut connection = Conn::new(options).await.unwrap();
            for id in from + 1.. {
                let row = (id, "x".repeat(500));
                if connection.exec_drop("INSERT INTO orders VALUES (?, ?)", row).await.is_err() {
                    return;
                }
                count.store(id, Ordering::SeqCst);
            }
        };
        let (seq, server) = (running.recorder.world().seq, running.server_pid());
        let killer = async {
            // Some rows are in, more are on their way.
            while acknowledged.load(Ordering::SeqCst) < from + 50 {
                tokio::task::yield_now().await;
            }
            kill(server);
        };
        tokio::time::timeout(DEADLINE, async { tokio::join!(writer, killer) }).await.unwrap();
        running.ready_after(seq).await;
        assert_ne!(running.server_pid(), server);
        let mut again = running.connect(&running.orders).await;
        let kept: Option<u64> = again.query_first("SELECT MAX(id) FROM orders").await.unwrap();
        let (kept, said) = (kept.unwrap(), acknowledged.load(Ordering::SeqCst));
        let count: Option<u64> = again.query_first("SELECT COUNT(*) FROM orders").await.unwrap();
        assert_eq!(count, Some(kept), "no gaps");
        assert!(kept == said || kept == said + 1, "round {round}: acknowledged {said}, kept {kept}");
        acknowledged.store(kept, Ordering::SeqCst);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_second_start_keeps_data_passwords_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let password = running.catalog.password.clone();
    let mut catalog = running.connect(&running.catalog).await;
    catalog.query_drop("CREATE TABLE kept (id INT)").await.unwrap();
    let server = running.server_pid();
    running.stop().await;
    assert!(!is_running(server), "the server is stopped");
    let began = Instant::now();
    let running = start(dir.path()).await;
    println!("second start: {:?}", began.elapsed());
    assert_eq!(running.catalog.password, password);
    let mut catalog = running.connect(&running.catalog).await;
    catalog.query_drop("SELECT * FROM kept").await.unwrap();
    running.stop().await;
    let began = Instant::now();
    let other = tempfile::tempdir().unwrap();
    let running = start(other.path()).await;
    println!("first start of another environment, from the template: {:?}", began.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let missing = DatabaseConfig { engine: EngineChoice::Process("/nonexistent/mysqld".into()), ..config(dir.path()) };
    let error = Database::bind(missing).await.err().unwrap();
    assert!(error.class() == ExitClass::Environment && error.hint().is_some(), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Database::bind(DatabaseConfig { port, ..config(dir.path()) }).await.err().unwrap();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    let corrupt = config(dir.path());
    let data = corrupt.state_dir.join("data/mysql");
    let database = Database::bind(corrupt).await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
    let failed = Box::new(database).run(RunContext::detached(Recorder::in_memory())).await.unwrap_err();
    assert!(failed.to_string().contains("exit code"), "{failed}");
    let name = DatabaseConfig { name: "Shop DB".into(), ..config(dir.path()) };
    assert!(Database::bind(name).await.is_err());
}

/// The other half of the next test: an aksim that is killed.
#[tokio::test]
#[ignore = "started as a process of its own by the_server_ends_with_aksim_and_nothing_is_lost"]
async fn an_aksim_that_is_killed() {
    let dir = PathBuf::from(std::env::var_os("AKSIM_TEST_DIR").expect("started by its other half"));
    let running = start(&dir).await;
    let mut orders = running.connect(&running.orders).await;
    orders.query_drop("CREATE TABLE IF NOT EXISTS orders (id INT PRIMARY KEY)").await.unwrap();
    orders.query_drop("INSERT INTO orders VALUES (42)").await.unwrap();
    std::fs::write(dir.join("acknowledged"), "42").unwrap();
    kill(std::process::id().cast_signed());
}

#[tokio::test]
async fn the_server_ends_with_aksim_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut aksim = tokio::process::Command::new(std::env::current_exe().unwrap());
    aksim.args(["--ignored", "--exact", "database::an_aksim_that_is_killed"]);
    let output = aksim.env("AKSIM_TEST_DIR", dir.path()).kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dir.path().join("acknowledged").exists(), "{said}");
    let server = pid(&dir.path().join("database"));
    // Binds while the old server may still be shutting down.
    let running = start(dir.path()).await;
    assert!(!is_running(server), "the old server is gone");
    let mut orders = running.connect(&running.orders).await;
    let kept: Option<u32> = orders.query_first("SELECT id FROM orders").await.unwrap();
    assert_eq!(kept, Some(42));
    running.stop().await;
}

#[tokio::test]
async fn the_mysql_client_connects_over_verified_tls() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let mut catalog = running.connect(&running.catalog).await;
    catalog.query_drop("CREATE TABLE products (name TEXT)").await.unwrap();
    catalog.query_drop("INSERT INTO products VALUES ('cheese')").await.unwrap();
    let client = async |ca: &Path| {
        tokio::process::Command::new("mysql")
            .args(["--no-defaults", "--batch", "--skip-column-names", "--ssl-verify-server-cert", "catalog"])
            .arg(format!("--host={}", running.address.ip()))
            .arg(format!("--port={}", running.address.port()))
            .arg(format!("--user={}", running.catalog.user))
            .arg(format!("--ssl-ca={}", ca.display()))
            .args(["--execute", "SELECT name FROM products"])
            .env("MYSQL_PWD", &running.catalog.password)
            .kill_on_drop(true)
            .output()
            .await
            .expect("the mysql client is missing: run `aksim doctor --fix`")
    };
    let output = client(&running.ca).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "cheese\n");
    let foreign = tempfile::tempdir().unwrap();
    let foreign = Pki::open(foreign.path(), "another").unwrap();
    assert!(!client(foreign.ca_path()).await.status.success(), "another CA is not trusted");
    running.stop().await;
}
