//! What a login that is refused costs: always the same, so that nothing can be told from it.

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;

use crate::server::Server;

// Cause: nothing held that a login with an unknown name goes through bcrypt at all. Symptom: none that a test would see;
// whoever asks has a list of the users there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refused_login_costs_the_same() {
    let server = Server::with_limits(Limits::default());
    let mut auth = AuthClient::new(server.connect().await);
    for (name, password, no_password) in [("root", "pw", false), ("ann", "pw", false), ("cert", "", true)] {
        let options = Some(rusd_proto::authpb::UserAddOptions { no_password });
        let user =
            pb::AuthUserAddRequest { name: name.into(), password: password.into(), options, ..Default::default() };
        auth.user_add(user).await.unwrap();
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let long = "x".repeat(1_000);
    let mut costs = Vec::new();
    for (name, password) in [
        ("root", "wrong"),
        ("ann", "wrong"),
        ("cert", "wrong"),
        ("nobody", "pw"),
        ("", "pw"),
        ("ann", &long),
        ("nobody", &long),
    ] {
        let before = server.services.auth.login_rounds();
        let login = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        auth.authenticate(login).await.unwrap_err();
        costs.push((name, server.services.auth.login_rounds() - before));
    }
    assert!(costs.iter().all(|(_, cost)| *cost == 1 << 4), "{costs:?}");
}
