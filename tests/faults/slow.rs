//! What makes a request slow is named in the log: the disk, or the apply.
//!
//! Only with the feature `failpoints`, whose points sleep where the time is to be lost.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use serde_json::Value;

use crate::failpoint::ask;
use crate::member::Member;

/// The lines about slow requests, as the log has them.
fn slow_lines(log: &str, says: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["msg"] == says).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slowest_stage_of_a_slow_write_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Above what a slow disk of a busy machine takes by itself.
    let slow = "--warning-unary-request-duration=2s".to_owned();
    let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &[slow]);
    let port = crate::ports::free();
    member.set_variable("GOFAIL_HTTP", format!("127.0.0.1:{port}"));
    let mut kv = KvClient::new(member.start().await);
    let put = || pb::PutRequest { key: "where\u{1}".into(), value: "not shown".into(), ..Default::default() };
    kv.put(put()).await.unwrap();
    assert_eq!(slow_lines(&member.log(), "request stats"), [Value::Null; 0], "a fast one is no news");
    for (point, stage) in [("walBeforeSync", "fsync"), ("beforeApplyOneEntryNormal", "apply")] {
        assert_eq!(ask(port, "PUT", point, "sleep(\"3s\")").0, 204);
        kv.put(put()).await.unwrap();
        assert_eq!(ask(port, "DELETE", point, "").0, 204);
        let lines = slow_lines(&member.log(), "request stats");
        let line = lines.last().unwrap_or_else(|| panic!("nothing was said of {stage}\n{}", member.log_tail()));
        assert_eq!(line["slowest stage"], stage, "{line}");
        assert_eq!(line["response type"], "/etcdserverpb.KV/Put", "{line}");
        let stages = line["stages"].as_str().unwrap();
        for part in ["queue: ", "fsync: ", "own: ", stage] {
            assert!(stages.contains(part), "{line}");
        }
        let content = line["request content"].as_str().unwrap();
        assert!(content.contains("where\\x01") && content.contains("value_size:9"), "{line}");
        assert!(!line.to_string().contains("not shown"), "{line}");
    }
    let applied = slow_lines(&member.log(), "apply request took too long");
    let line = applied.last().unwrap_or_else(|| panic!("nothing was said where it is applied\n{}", member.log_tail()));
    assert!(line["request"].as_str().unwrap().contains("where\\x01"), "{line}");
}
