//! Authentication, turned on.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;

use super::{AskError, Line};
use crate::auth::Secret;

const ROOT: &str = "root";

impl Line {
    /// Makes root with this password, and turns authentication on; `false` if it was on, and the password is right.
    /// This line must be nobody's: while authentication is off, everybody may do this.
    ///
    /// # Errors
    /// No answer in time, or a refusal: another password is in force, say.
    pub async fn secure(&self, password: &Secret) -> Result<bool, AskError> {
        let (name, text) = (ROOT.to_owned(), password.reveal().to_owned());
        let mut client = AuthClient::new(self.channel());
        let login = pb::AuthenticateRequest { name: name.clone(), password: text.clone() };
        match self.within(client.authenticate(login)).await {
            Ok(_) => return Ok(false),
            Err(error) if error.says("authentication is not enabled") => {}
            Err(error) => return Err(error),
        }
        let there = |error: AskError| if error.says("already exists") { Ok(()) } else { Err(error) };
        let role = self.within(client.role_add(pb::AuthRoleAddRequest { name: name.clone() })).await;
        role.map(drop).or_else(there)?;
        let user = pb::AuthUserAddRequest { name: name.clone(), password: text.clone(), ..Default::default() };
        match self.within(client.user_add(user)).await {
            Ok(_) => {}
            // From a try that didn't come to its end, maybe with another password.
            Err(error) if error.says("already exists") => {
                let change =
                    pb::AuthUserChangePasswordRequest { name: name.clone(), password: text, ..Default::default() };
                self.within(client.user_change_password(change)).await?;
            }
            Err(error) => return Err(error),
        }
        self.within(client.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.clone(), role: name })).await?;
        self.within(client.auth_enable(pb::AuthEnableRequest {})).await?;
        Ok(true)
    }
}
