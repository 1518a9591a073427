//! A line to one server: a connection when it is needed, a token where there is a user, an answer in time or none.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use super::AskError;
use crate::auth::Secret;
use crate::consensus::peer::{Dial, SocketDial};
use crate::env::Clock;
use crate::tls::Connector;

/// How servers are reached, and as whom.
#[derive(Debug)]
pub struct WayOptions {
    /// The user and the password; nobody without.
    pub user: Option<(String, Secret)>,
    /// For URLs with TLS.
    pub connector: Option<Connector>,
    /// How long a connection may take.
    pub dial_timeout: Duration,
    /// How long an answer may take after that.
    pub call_timeout: Duration,
    /// By which answers are timed.
    pub clock: Arc<dyn Clock>,
}

/// The way to servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Way {
    options: Arc<WayOptions>,
    dial: Arc<dyn Dial>,
}

impl Way {
    /// Nothing is dialled yet.
    pub fn new(options: WayOptions) -> Self {
        let dial = Arc::new(SocketDial::new(options.connector.clone()));
        Self { options: Arc::new(options), dial }
    }

    /// The line to a client URL; the connection is made with the first call.
    pub fn to(&self, endpoint: &str) -> Line {
        let (dial, url, limit) = (self.dial.clone(), endpoint.to_owned(), self.options.dial_timeout);
        let connect = move |_: Uri| {
            let dialling = tokio::time::timeout(limit, dial.dial(&url));
            async move { dialling.await.unwrap_or_else(|late| Err(late.into())).map(TokioIo::new) }
        };
        let channel = Endpoint::from_static("http://member").connect_with_connector_lazy(tower::service_fn(connect));
        Line { endpoint: endpoint.to_owned(), channel, way: self.clone() }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.options.clock.as_ref()
    }
}

/// A line to one server.
#[derive(Clone, Debug)]
pub struct Line {
    endpoint: String,
    channel: Channel,
    way: Way,
}

impl Line {
    /// The URL at its other end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A call in this user's name.
    pub(super) async fn request<T>(&self, message: T) -> Result<Request<T>, AskError> {
        let mut request = Request::new(message);
        let Some((name, password)) = &self.way.options.user else { return Ok(request) };
        let login = pb::AuthenticateRequest { name: name.clone(), password: password.reveal().to_owned() };
        match self.within(AuthClient::new(self.channel()).authenticate(login)).await {
            Ok(answer) => {
                let token = answer.token.parse();
                let token = token.map_err(|_| AskError::Refused("its token is none".to_owned()))?;
                request.metadata_mut().insert("token", token);
            }
            // The user isn't needed then.
            Err(error) if error.says("authentication is not enabled") => {}
            Err(error) => return Err(error),
        }
        Ok(request)
    }

    /// The answer, if it comes in time.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, AskError> {
        let limit = self.way.options.dial_timeout.saturating_add(self.way.options.call_timeout);
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(AskError::Unreachable("it is late".to_owned())),
        }
    }
}
