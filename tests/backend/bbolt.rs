//! The exported file is a real bbolt database with etcd's buckets: its own tools say so.

use std::io::Read;
use std::process::Command;

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::Record;
use rusd::storage::backend::{Engine, Table};
use rusd::storage::snapshot::bbolt::{BboltContent, export_bbolt};
use rusd::types::{LeaseId, MemberId, Revision};
use sha2::Digest;

use crate::common::{Place, at, block_on, position, record};
use crate::peers::peer;

/// A state of `keys` records, with large values among them, tombstones and a txn; and its file.
fn export(keys: i64) -> (Vec<u8>, i64) {
    let place = Place::new(Engine::Redb);
    let (mut writer, reader, _) = place.open().unwrap();
    for main in 2..keys + 2 {
        let bytes = if main % 400 == 0 { 70_000 } else { (main % 300) as usize };
        let mut records = vec![(at(main), record(main, bytes))];
        if main % 7 == 0 {
            records.push((Revision::new(main, 1), Record { key: Bytes::from(format!("gone/{main}")), version: None }));
        }
        let compact =
            (Table::Meta, Bytes::from_static(b"compact_revision"), Some(Bytes::from(2i64.to_be_bytes().to_vec())));
        writer.append(records, vec![compact], position(main)).unwrap();
    }
    let mut content = BboltContent::new("3.7.0", "3.7.0");
    content.lease(LeaseId(77), 60, 30);
    content.alarm(MemberId(5), 1);
    content.member(
        MemberId(0x8e9e_05c5_2164_694d),
        br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#,
    );
    content.conf_state(br#"{"voters":[10276657743932975437],"auto_leave":false}"#);
    content.auth(false, 1);
    let frozen = block_on(reader.freeze()).unwrap();
    let (mut stream, len) = export_bbolt(&Env::real(), &frozen, &reader, &content, place.dir.path()).unwrap();
    let mut file = Vec::new();
    stream.read_to_end(&mut file).unwrap();
    assert_eq!(file.len() as u64, len);
    let left = std::fs::read_dir(place.dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("export"));
    assert_eq!(left.count(), 0, "no name is left behind");
    (file, frozen.last_main)
}

#[test]
fn the_files_pages_begin_as_bbolts_do() {
    for keys in [0, 1, 10] {
        let (file, _) = export(keys);
        assert_eq!(file.len() % 4096, 0);
        for meta in [0, 4096] {
            assert_eq!(&file[meta + 16..meta + 24], [0xed, 0xda, 0x0c, 0xed, 2, 0, 0, 0], "magic and version");
        }
    }
}

#[test]
fn etcdutl_finds_the_file_whole_and_restores_it() {
    let Some(etcdutl) = peer("etcdutl", "etcdutl_finds_the_file_whole_and_restores_it") else {
        return;
    };
    for keys in [0, 1, 100, 30_000] {
        let (mut file, revision) = export(keys);
        // As `etcdctl snapshot save` leaves it: the digest at the end.
        let digest = sha2::Sha256::digest(&file);
        file.extend_from_slice(&digest);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot.db");
        std::fs::write(&path, &file).unwrap();
        let run = |arguments: &[&str]| {
            let output = Command::new(&etcdutl).args(arguments).current_dir(dir.path()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
            text
        };
        let status: serde_json::Value =
            serde_json::from_str(&run(&["snapshot", "status", "snapshot.db", "-w", "json"])).unwrap();
        assert_eq!(status["revision"], revision);
        assert_eq!(status["version"], "3.7.0");
        assert_eq!(status["totalKey"], keys.min(1000));
        run(&["snapshot", "restore", "snapshot.db", "--data-dir", "restored"]);
        let hash = run(&["hashkv", "restored/member/snap/db", "-w", "json"]);
        assert!(hash.contains("hash"), "{hash}");
    }
}
