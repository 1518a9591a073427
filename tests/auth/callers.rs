//! The kinds of callers there are.

use tonic::transport::Channel;

use crate::sites::Site;
use crate::users::{add_role, add_user, enable, grant_role, login, with};

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Without a token.
    Anonymous,
    /// With one that is none.
    WrongToken,
    /// With one that was ended: by another password, or by a change of users where tokens are signed.
    StaleToken,
    /// A user without a role.
    NoRole,
    /// May read one key.
    ReadOne,
    /// May write one key.
    WriteOne,
    /// May read and write a range.
    Range,
    /// May read from a key on to the last.
    OpenRead,
    /// With a certificate that says no name.
    Nameless,
    /// Root.
    Root,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Anonymous,
        Self::WrongToken,
        Self::StaleToken,
        Self::NoRole,
        Self::ReadOne,
        Self::WriteOne,
        Self::Range,
        Self::OpenRead,
        Self::Root,
    ];

    /// What it may do: its permission's kind, first key and end.
    pub(crate) fn grant(self) -> Option<(i32, &'static str, &'static str)> {
        match self {
            Self::ReadOne => Some((0, "k", "")),
            Self::WriteOne => Some((1, "k", "")),
            Self::Range => Some((2, "a", "m")),
            Self::OpenRead => Some((0, "k", "\0")),
            _ => None,
        }
    }
}

/// A caller with the token that it shows, or the connection that shows its certificate.
pub(crate) struct Caller {
    pub(crate) kind: Kind,
    pub(crate) token: Option<String>,
    pub(crate) channel: Option<Channel>,
}

impl Caller {
    /// The same by a certificate; `None` for who has a token and nothing else.
    pub(crate) fn certified(self, site: &Site) -> Option<Self> {
        let (kind, name) = match self.kind {
            Kind::WrongToken | Kind::StaleToken => return None,
            Kind::Anonymous => (Kind::Nameless, String::new()),
            Kind::Root => (Kind::Root, "root".to_owned()),
            kind => (kind, format!("{kind:?}")),
        };
        Some(Self { kind, token: None, channel: site.named(&name) })
    }
}

/// Makes the users, turns authentication on, and logs all of them in.
pub(crate) async fn make(channel: &Channel, signed: bool) -> Vec<Caller> {
    add_user(channel, None, "root", "pw-root").await.expect("root is added");
    grant_role(channel, None, "root", "root").await.expect("root gets its role");
    for kind in Kind::ALL {
        let name = format!("{kind:?}");
        add_user(channel, None, &name, "pw").await.expect("a user is added");
        if let Some(grant) = kind.grant() {
            add_role(channel, None, &name, Some(grant)).await.expect("a role is added");
            grant_role(channel, None, &name, &name).await.expect("a role is granted");
        }
    }
    // What it may would be enough for much, if its token were.
    grant_role(channel, None, "StaleToken", "Range").await.expect("a role is granted");
    enable(channel).await.expect("authentication is turned on");
    let root = login(channel, "root", "pw-root").await.expect("root logs in");
    let stale = login(channel, "StaleToken", "pw").await.expect("it logs in");
    if signed {
        add_role(channel, Some(&root), "another", None).await.expect("a role is added");
    } else {
        use rusd_proto::etcdserverpb::{AuthUserChangePasswordRequest, auth_client::AuthClient};
        let change =
            AuthUserChangePasswordRequest { name: "StaleToken".into(), password: "other".into(), ..Default::default() };
        AuthClient::new(channel.clone()).user_change_password(with(Some(&root), change)).await.expect("it is changed");
    }
    let mut callers = Vec::new();
    for kind in Kind::ALL {
        let token = match kind {
            Kind::Anonymous => None,
            Kind::WrongToken => Some("wrong.5".to_owned()),
            Kind::StaleToken => Some(stale.clone()),
            Kind::Root => Some(login(channel, "root", "pw-root").await.expect("root logs in")),
            kind => Some(login(channel, &format!("{kind:?}"), "pw").await.expect("a user logs in")),
        };
        callers.push(Caller { kind, token, channel: None });
    }
    callers
}
