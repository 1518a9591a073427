//! Members that reach each other over TLS.

use std::time::Instant;

use crate::authority::{Authority, Wanted};
use crate::process::{COMES_MAX, Member, Place, flag};

/// Members with peer URLs of this scheme and flags of their own, started together.
fn cluster(place: &Place, scheme: &str, flags: impl Fn(&str) -> Vec<String>) -> Vec<Member> {
    let mut members: Vec<_> = ["m1", "m2", "m3"].map(|name| Member::new(place, name, "http", scheme)).into();
    let initial: Vec<_> = members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    for member in &mut members {
        let more = flags(&member.name);
        member.set_flags(&initial.join(","), &more);
        member.start();
    }
    members
}

/// Waits until a member answers a linearizable read; `false` if etcdctl isn't built.
fn is_up(member: &Member) -> bool {
    let begun = Instant::now();
    loop {
        match member.ctl(&[], &["get", "nothing"]) {
            None => return false,
            Some(Ok(_)) => return true,
            Some(Err(error)) => assert!(begun.elapsed() < COMES_MAX, "{error}\n{}", member.log()),
        }
    }
}

/// Waits until one of them has these words in its log.
fn one_says(members: &[Member], words: &str) {
    let begun = Instant::now();
    while !members.iter().any(|member| member.log().contains(words)) {
        let logs: Vec<_> = members.iter().map(Member::log).collect();
        assert!(begun.elapsed() < COMES_MAX, "none of them says {words:?}:\n{}", logs.join("\n"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Flags of a member with a certificate of this authority.
fn under(place: &Place, authority: &Authority, ca: &std::path::Path, name: &str) -> Vec<String> {
    let wanted = Wanted { common_name: "members", ..Wanted::default() };
    let issued = authority.issue(place.path(), name, &wanted);
    vec![
        flag("peer-cert-file", &issued.cert),
        flag("peer-key-file", &issued.key),
        flag("peer-trusted-ca-file", ca),
        "--peer-client-cert-auth".to_owned(),
        "--peer-cert-allowed-cn=members".to_owned(),
    ]
}

#[test]
fn members_with_certificates_are_a_cluster_that_heals() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let mut members = cluster(&place, "https", |name| under(&place, &authority, &ca, name));
    if !members.iter().all(is_up) {
        return;
    }
    members[0].serves(&[], "a");
    members[2].kill();
    members[1].serves(&[], "b");
    members[2].start();
    assert!(is_up(&members[2]));
    assert_eq!(members[2].ctl(&[], &["get", "b", "--print-value-only"]), Some(Ok("v\n".to_owned())));
    // Another one joins: it asks the members who they are over TLS, too.
    let mut joins = Member::new(&place, "m4", "http", "https");
    let begun = Instant::now();
    // Members must have been in touch for a while before there may be more of them. An answer may be lost.
    while let Some(Err(error)) = members[0].ctl(&[], &["member", "add", "m4", &format!("--peer-urls={}", joins.peer)]) {
        if error.contains("Peer URLs already exists") {
            break;
        }
        assert!(begun.elapsed() < COMES_MAX, "{error}");
    }
    let all: Vec<_> = members.iter().chain([&joins]).map(|member| format!("{}={}", member.name, member.peer)).collect();
    let mut flags = under(&place, &authority, &ca, "m4");
    flags.push("--initial-cluster-state=existing".to_owned());
    joins.set_flags(&all.join(","), &flags);
    joins.start();
    assert!(is_up(&joins));
    assert_eq!(joins.ctl(&[], &["get", "a", "--print-value-only"]), Some(Ok("v\n".to_owned())));
}

#[test]
fn strangers_are_no_members() {
    let (place, authority, other) = (Place::new(), Authority::new("authority"), Authority::new("other"));
    let ca = authority.write(place.path(), "ca");
    // It trusts the others, and they don't trust it.
    let mut members = cluster(&place, "https", |name| {
        let issuer = if name == "m3" { &other } else { &authority };
        under(&place, issuer, &ca, name)
    });
    if !members[..2].iter().all(is_up) {
        return;
    }
    members[0].serves(&[], "a");
    members[0].says("rejected connection on peer endpoint");
    // Whoever leads calls it.
    one_says(&members[..2], "no TLS with this member");
    // Nor does it take the refusal for a dead connection.
    members[2].says("no TLS with this member");
    let got = members[2].ctl(&[], &["get", "a"]);
    assert!(matches!(got, Some(Err(_))), "{got:?}");
    // With a name that isn't allowed it is no better.
    members[2].kill();
    let wanted = Wanted { common_name: "somebody", ..Wanted::default() };
    authority.issue(place.path(), "m3", &wanted);
    members[2].start();
    members[0].says("client certificate authentication failed");
    assert!(matches!(members[2].ctl(&[], &["get", "a"]), Some(Err(_))));
    // With the right one it catches up.
    members[2].kill();
    under(&place, &authority, &ca, "m3");
    members[2].start();
    assert!(is_up(&members[2]));
}

#[test]
fn members_make_their_own_certificates() {
    for scheme in ["https", "unixs"] {
        let place = Place::new();
        let members = cluster(&place, scheme, |_| vec!["--peer-auto-tls".to_owned()]);
        if !members.iter().all(is_up) {
            return;
        }
        members[1].serves(&[], "a");
        assert!(members[0].dir.join("data/fixtures/peer/cert.pem").is_file());
    }
}
