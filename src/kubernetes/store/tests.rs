use super::*;
use serde_json::json;
use std::{
    io::{BufRead, Write as _},
    process::{Command, Stdio},
};

fn draft(name: &str, n: u64) -> Draft {
    Draft::new(&json!({"metadata": {"name": name, "uid": name}, "n": n}), &[])
}

async fn put(store: &Store, table: TableId, name: &str, expect: Expect, n: u64) -> Result<Arc<Object>, CommitError> {
    store.commit(Write { table, key: Key::new("ns", name), expect, change: Change::Put(draft(name, n)) }).await
}

async fn remove(store: &Store, table: TableId, name: &str, revision: u64) -> Result<Arc<Object>, CommitError> {
    let change = Change::Delete(draft(name, 0));
    store.commit(Write { table, key: Key::new("ns", name), expect: Expect::Revision(revision), change }).await
}

fn open(dir: &Path) -> Store {
    Store::open(StoreConfig { segment_limit: 64 << 10, ..StoreConfig::new(dir.to_owned()) }).unwrap()
}

#[tokio::test]
async fn writes_are_conditional_and_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let table = store.table("pods");
    let first = put(&store, table, "a", Expect::Absent, 1).await.unwrap();
    assert_eq!(first.revision, 1);
    assert!(matches!(put(&store, table, "a", Expect::Absent, 2).await, Err(CommitError::Exists)));
    assert!(matches!(put(&store, table, "a", Expect::Revision(9), 2).await, Err(CommitError::Conflict)));
    let second = put(&store, table, "a", Expect::Revision(1), 2).await.unwrap();
    assert_eq!((second.revision, second.value()["metadata"]["resourceVersion"].as_str()), (2, Some("2")));
    assert!(matches!(remove(&store, table, "a", 1).await, Err(CommitError::Conflict)));
    assert_eq!(remove(&store, table, "a", 2).await.unwrap().revision, 3);
    assert!(store.get(table, &Key::new("ns", "a")).is_none());
}

/// A batch does not wait for the writer that opened it: that may be busy, or gone.
#[tokio::test]
async fn a_writer_that_goes_away_holds_up_nobody() {
    const SOON: std::time::Duration = std::time::Duration::from_secs(20);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let table = store.table("pods");
    let mut events = store.watch(table, 0).unwrap();
    let mut busy = Box::pin(put(&store, table, "busy", Expect::Absent, 1));
    assert!(futures::poll!(busy.as_mut()).is_pending());
    assert_eq!(store.snapshot().revision, 0, "what waits is committed with what comes with it");
    let other = tokio::time::timeout(SOON, put(&store, table, "other", Expect::Absent, 1)).await.unwrap();
    assert_eq!(other.unwrap().revision, 2);
    assert_eq!(busy.await.unwrap().revision, 1);

    let mut gone = Box::pin(put(&store, table, "gone", Expect::Absent, 1));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    drop(gone);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "gone") {
        let next = tokio::time::timeout(SOON, events.next(10)).await.unwrap().unwrap();
        seen.extend(next.iter().map(|event| event.object.key.name().to_owned()));
    }
    assert_eq!(seen, ["busy", "other", "gone"]);
}

#[tokio::test]
async fn a_snapshot_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let table = store.table("pods");
    for n in 0..100 {
        put(&store, table, &format!("p{n:03}"), Expect::Absent, n).await.unwrap();
    }
    let before = store.snapshot();
    for n in 0..100 {
        remove(&store, table, &format!("p{n:03}"), n + 1).await.unwrap();
    }
    let after = Key::new("ns", "p097");
    let rest: Vec<_> = before.table(table).range(Some("ns"), Some(&after)).map(|o| o.key.name().to_owned()).collect();
    assert_eq!((before.revision, before.table(table).len(), rest), (100, 100, vec!["p098".into(), "p099".into()]));
    assert_eq!(before.table(table).range(Some("other"), None).count(), 0);
    assert_eq!((store.snapshot().revision, store.snapshot().table(table).len()), (200, 0));
}

#[tokio::test]
async fn watchers_resume_anywhere_until_history_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { history: 4, ..StoreConfig::new(dir.path().to_owned()) }).unwrap();
    let table = store.table("pods");
    let mut lagging = store.watch(table, 0).unwrap();
    let mut waiting = store.watch(table, 0).unwrap();
    let (got, _) = tokio::join!(waiting.next(10), put(&store, table, "a", Expect::Absent, 1));
    let got = got.unwrap();
    assert_eq!((got.len(), got[0].kind, got[0].object.revision), (1, EventKind::Added, 1));
    for n in 1..8 {
        put(&store, table, "a", Expect::Revision(n), n).await.unwrap();
    }
    assert_eq!(lagging.next(10).await.unwrap_err(), Compacted { asked: 0, oldest: 4 });
    assert_eq!(store.watch(table, 3).err(), Some(Compacted { asked: 3, oldest: 4 }));
    let events = store.watch(table, 6).unwrap().next(10).await.unwrap();
    let seen: Vec<_> = events.iter().map(|e| (e.object.revision, e.previous.as_ref().unwrap().revision)).collect();
    assert_eq!(seen, [(7, 6), (8, 7)]);
}

#[tokio::test]
async fn everything_is_there_again_after_reopening_and_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let revision = {
        let store = open(dir.path());
        assert!(matches!(Store::open(StoreConfig::new(dir.path().to_owned())), Err(StoreError::Locked { .. })));
        let table = store.table("pods");
        let mut revision = put(&store, table, "kept", Expect::Absent, 0).await.unwrap().revision;
        for n in 0..2000 {
            revision = put(&store, table, "kept", Expect::Revision(revision), n).await.unwrap().revision;
        }
        let gone = put(&store, table, "gone", Expect::Absent, 0).await.unwrap().revision;
        remove(&store, table, "gone", gone).await.unwrap().revision
    };
    assert!(log::files(dir.path(), "snapshot-").unwrap().len() == 1, "2,000 writes pass the segment limit");
    let store = open(dir.path());
    let table = store.table("pods");
    assert_eq!(store.snapshot().revision, revision);
    let kept = store.get(table, &Key::new("ns", "kept")).unwrap();
    assert_eq!((kept.value()["n"].as_u64(), store.snapshot().table(table).len()), (Some(1999), 1));
    assert_eq!(put(&store, table, "next", Expect::Absent, 0).await.unwrap().revision, revision + 1);
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_a_damaged_snapshot_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let table = store.table("pods");
        put(&store, table, "a", Expect::Absent, 1).await.unwrap();
        put(&store, table, "b", Expect::Absent, 2).await.unwrap();
    }
    let log = dir.path().join("log-0");
    let length = std::fs::metadata(&log).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - 3).unwrap();
    {
        let store = open(dir.path());
        let table = store.table("pods");
        assert_eq!((store.snapshot().revision, store.snapshot().table(table).len()), (1, 1));
        put(&store, table, "c", Expect::Absent, 3).await.unwrap();
    }
    assert_eq!(open(dir.path()).snapshot().revision, 2);
    std::fs::write(dir.path().join("snapshot-9"), b"torn").unwrap();
    assert!(matches!(Store::open(StoreConfig::new(dir.path().to_owned())), Err(StoreError::Damaged { .. })));
}

const CRASH_DIR: &str = "AKSIM_STORE_CRASH_DIR";

/// Kills a writing process at random moments and finds every write it acknowledged. The test
/// runs itself as that process.
#[test]
fn kill_9_loses_no_acknowledged_write() {
    if let Some(dir) = std::env::var_os(CRASH_DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill_9_loses_no_acknowledged_write", "--nocapture"])
            .env(CRASH_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 50 + rand::random_range(0..3000);
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((name, revision)) = line.strip_prefix("ack ").and_then(|l| l.split_once(' ')) {
                acknowledged.insert(name.to_owned(), revision.parse().unwrap());
                count += 1;
            }
            if count == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= enough, "round {round}: the writer ended by itself");
        let store = open(dir.path());
        let table = store.table("pods");
        for (name, revision) in &acknowledged {
            let found = store.get(table, &Key::new("ns", name)).map_or(0, |object| object.revision);
            assert!(found >= *revision, "round {round}: {name} at {found}, acknowledged at {revision}");
        }
    }
}

fn write_until_killed(dir: &Path) {
    let store = Arc::new(open(dir));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let store = store.clone();
            writers.spawn(async move {
                let table = store.table("pods");
                for n in 0u64.. {
                    let name = format!("w{writer}-{}", n % 50);
                    let expect = store
                        .get(table, &Key::new("ns", &name))
                        .map_or(Expect::Absent, |object| Expect::Revision(object.revision));
                    let written = put(&store, table, &name, expect, n).await.unwrap();
                    let line = format!("ack {name} {}\n", written.revision);
                    if std::io::stdout().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
        writers.join_all().await;
    });
}
