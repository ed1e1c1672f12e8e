//! A process killed in the middle of its writes: every acknowledged durable write
//! is there afterwards, and no revision is handed out twice.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use harness::sys;
use storage::{DatastoreConfig, Key, Put, Range, RedbConfig, Revision, open};

/// Tells the test binary to be the victim, on this file.
const VICTIM: &str = "COPEPOD_TEST_STORE_VICTIM";
const WRITERS: usize = 8;
const WRITES: usize = 1000;

/// Does nothing unless this process is the victim: then it writes until killed and
/// prints each acknowledged write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    let store = open(&DatastoreConfig::Redb(RedbConfig::new(path))).await.unwrap();
    let write = |writer: usize| {
        let store = store.clone();
        async move {
            for n in 0.. {
                let key = Key::new(format!("/w/{writer}/{n}")).unwrap();
                let revision = store.put(Put::create(key, format!("{writer}-{n}").repeat(50))).await.unwrap();
                // One write, so that lines of several writers do not mix.
                println!("ack {writer} {n} {revision}");
                let beat = Key::new(format!("/beat/{writer}")).unwrap();
                let revision = store.put(Put::overwrite(beat, format!("{n}")).eventually()).await.unwrap();
                println!("beat {writer} {n} {revision}");
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let mut newest = Revision(0);
    let mut acknowledged: Vec<(String, Revision)> = Vec::new();
    for round in 0..3 {
        let database = path.with_extension(format!("{round}"));
        let (acks, handed_out) = kill_in_the_middle(database.to_str().unwrap(), WRITES / 3 * (round + 1));
        let store = open(&DatastoreConfig::Redb(RedbConfig::new(&database))).await.unwrap();
        for (name, revision) in &acks {
            let entry = store.get(&Key::new(name.as_str()).unwrap()).await.unwrap();
            let entry = entry.unwrap_or_else(|| panic!("{name} was acknowledged at {revision} and is gone"));
            assert_eq!(entry.revision, *revision);
        }
        let next = store.put(Put::create(Key::new("/after").unwrap(), "")).await.unwrap();
        assert!(next > handed_out, "{next} would be handed out a second time");
        let page = store.list(Range::prefix("/w/")).await.unwrap();
        for entry in page.entries {
            let (writer, n) = entry.key.as_str().trim_start_matches("/w/").split_once('/').unwrap();
            assert_eq!(entry.value, format!("{writer}-{n}").repeat(50), "values are whole");
        }
        newest = newest.max(next);
        acknowledged.extend(acks);
    }
    assert!(acknowledged.len() >= WRITES, "the test wrote enough to mean something");
}

/// Runs the victim until it acknowledged `count` writes, kills it, and returns
/// those and the newest revision it showed anyone.
fn kill_in_the_middle(database: &str, count: usize) -> (Vec<(String, Revision)>, Revision) {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args(["crash::victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, database)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut victim = sys::end_with_us(&mut again).spawn().unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let mut acks = Vec::new();
    let mut handed_out = Revision(0);
    let mut killed = false;
    // What it printed before it died counts too, so its pipe is read to the end.
    for line in output.lines() {
        let line = line.unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        let [kind, writer, n, revision] = fields[..] else { continue };
        let Ok(revision) = revision.parse::<Revision>() else { continue };
        handed_out = handed_out.max(revision);
        if kind == "ack" {
            acks.push((format!("/w/{writer}/{n}"), revision));
        }
        if acks.len() >= count && !killed {
            victim.kill().unwrap();
            killed = true;
        }
    }
    victim.wait().unwrap();
    assert!(killed, "the victim ended by itself");
    (acks, handed_out)
}
