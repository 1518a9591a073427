//! What a release goes through while writers write: nothing that was acknowledged is lost by any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::StatusRequest;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::cluster::{Cluster, Secrets, full};
use super::release::Release;
use super::service::CLIENT_PORT;
use super::writer::{Lull, Writers, missing};
use super::{NAMESPACE, RELEASE, Result};
use crate::certs::{Authority, Pair, Usage};
use crate::secure::{Dialer, Speech};

/// Two election timeouts of the chart's are what an election may take; a call that hung is given up after as long, and then a
/// connection is made anew.
const REFUSED_MAX: Duration = Duration::from_secs(5);
/// A node that is gone without a word is a connection that hangs besides.
const LOST_MAX: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(120);
/// Writes of each writer that follow each step.
const MORE: usize = 50;
const TLS: &str = "rusd-tls";
const ROOT: &str = "rusd-root";
/// Tags of images: what the story begins with, and what it is upgraded to.
pub(super) const OLD: &str = "old";
pub(super) const NEW: &str = "new";

/// All that runs.
pub(super) struct Story {
    writers: Writers,
    cluster: Cluster,
    dialer: Dialer,
    steps: usize,
    begun: Instant,
}

/// The values of the release: TLS, users, a backup, and no more memory than a trial needs.
fn values(replicas: u32, tag: &str, more: &[&str]) -> Vec<String> {
    let mut values = vec![format!("replicas={replicas}"), format!("image.tag={tag}")];
    values.extend([format!("tls.enabled=true,tls.existingSecret={TLS}"), "backup.enabled=true".to_owned()]);
    values.extend([format!("auth.enabled=true,auth.existingSecret={ROOT}"), "server.quotaMiB=512".to_owned()]);
    values.extend(more.iter().map(|value| (*value).to_owned()));
    values
}

/// The secrets that the release names, and who clients are.
fn secrets(run: &Path) -> Result<(Secrets, Dialer)> {
    let authority = Authority::new(&run.join("tls"), "pods-ca")?;
    let set = format!("{RELEASE}-rusd");
    // As the chart's README says.
    let mut names = vec!["IP:127.0.0.1".to_owned(), "DNS:localhost".to_owned(), format!("DNS:{set}")];
    names.extend([format!("DNS:{set}.{NAMESPACE}.svc"), format!("DNS:{}", full(&set))]);
    names.extend((0..5).map(|at| format!("DNS:{}", full(&format!("{set}-{at}.{set}-headless")))));
    let members = authority.issue("members", "/O=pods", Usage::Both, &names.join(","))?;
    // Whoever shows this certificate is root, once users are on.
    let root = authority.issue("root", "/CN=root", Usage::Client, "")?;
    let dialer = Dialer::new(&authority.ca(), &root, &full(&set), Speech::Grpc)?;
    let Pair { cert, key } = members;
    let tls = [("tls.crt", cert), ("tls.key", key), ("ca.crt", authority.ca())];
    let tls = tls.into_iter().map(|(name, path)| Ok((name.to_owned(), fs::read(path)?))).collect::<Result<_>>()?;
    let password = vec![("root-password".to_owned(), b"opensesame".to_vec())];
    Ok((BTreeMap::from([(TLS.to_owned(), tls), (ROOT.to_owned(), password)]), dialer))
}

impl Story {
    /// Installs the release in an empty cluster; writers write from then on.
    pub(super) async fn begin(run: &Path, old: PathBuf, new: PathBuf) -> Result<Self> {
        let begun = Instant::now();
        let (secrets, dialer) = secrets(run)?;
        let programs = BTreeMap::from([(OLD.to_owned(), old), (NEW.to_owned(), new)]);
        let mut cluster = Cluster::new(run, programs, secrets).await?;
        let release = Release::render(&values(3, OLD, &[]), false)?;
        cluster.install(&release).await?;
        let service = SocketAddr::from((cluster.network.service(), CLIENT_PORT));
        let writers = Writers::start(&dialer, service);
        let mut story = Self { writers, cluster, dialer, steps: 0, begun };
        story.ok("install", "three members, users on", LONG).await?;
        story.cluster.test(&release).await?;
        story.ok("helm test", "all members are there", REFUSED_MAX).await?;
        Ok(story)
    }

    /// Tells the rest; how many steps there were.
    pub(super) async fn tell(mut self) -> Result<usize> {
        self.scale().await?;
        self.roll().await?;
        self.go_back().await?;
        self.lose_things().await?;
        self.restore().await
    }

    /// A step that is over was planned: nobody is refused by it.
    async fn planned(&mut self, name: &str, detail: &str) -> Result<()> {
        match self.ok(name, detail, REFUSED_MAX).await? {
            Lull { refused: 0, .. } => Ok(()),
            Lull { refused, said, .. } => Err(format!("{name}: {refused} writes were refused: {said}").into()),
        }
    }

    /// A step is over: how long was no write acknowledged?
    async fn ok(&mut self, name: &str, detail: &str, refused_max: Duration) -> Result<Lull> {
        let lull = self.writers.lull(MORE, LONG).await?;
        let Lull { longest, refused, unanswered, said } = &lull;
        let longest = *longest;
        if longest > refused_max {
            return Err(format!("{name}: no write was acknowledged for {longest:?}: {said}").into());
        }
        let why = if refused + unanswered > 0 { format!(": {said}") } else { String::new() };
        let (took, longest) = (self.begun.elapsed().as_secs_f64(), longest.as_millis());
        println!(
            "ok  {name}: {detail} ({took:.1} s; no write for {longest} ms at most, {refused} refused, {unanswered} unanswered{why})"
        );
        self.steps += 1;
        self.begun = Instant::now();
        Ok(lull)
    }

    async fn scale(&mut self) -> Result<()> {
        let five = Release::render(&values(5, OLD, &[]), true)?;
        self.cluster.upgrade(&five).await?;
        self.cluster.test(&five).await?;
        self.unrestarted()?;
        self.planned("3 to 5", "five members, nobody started again").await?;
        self.cluster.upgrade(&Release::render(&values(3, OLD, &[]), true)?).await?;
        let job = Release::render(&values(3, OLD, &[]), true)?;
        self.cluster.test(&job).await?;
        let said = self.cluster.logged(&format!("{RELEASE}-rusd-shrink-1"));
        if !said.contains(&format!("removed {RELEASE}-rusd-4, {RELEASE}-rusd-3")) {
            return Err(format!("the hook should have removed two members: {said}").into());
        }
        self.unrestarted()?;
        self.planned("5 to 3", "two removed by the hook before their pods went").await
    }

    async fn roll(&mut self) -> Result<()> {
        let release = Release::render(&values(3, NEW, &["server.logLevel=debug"]), true)?;
        self.cluster.upgrade(&release).await?;
        self.cluster.test(&release).await?;
        self.unrestarted()?;
        self.planned("rolling upgrade", "another image and other flags, one pod after the other").await
    }

    async fn go_back(&mut self) -> Result<()> {
        let release = Release::render(&values(5, OLD, &[]), true)?;
        self.cluster.rollback(&release).await?;
        self.cluster.test(&release).await?;
        self.planned("rollback", "to five members and what they ran before, onto claims that were kept").await?;
        self.cluster.upgrade(&Release::render(&values(3, NEW, &[]), true)?).await?;
        self.planned("5 to 3 and rolled", "in one upgrade").await
    }

    /// Nobody's container ended by itself.
    fn unrestarted(&self) -> Result<()> {
        let restarts = self.cluster.restarts();
        if restarts.values().all(|count| *count == 0) { Ok(()) } else { Err(format!("restarts: {restarts:?}").into()) }
    }

    /// The ordinal of the member that leads.
    async fn leader(&self) -> Result<u32> {
        for at in 0..3 {
            let to = SocketAddr::from((self.cluster.address(at)?, CLIENT_PORT));
            let mut client = MaintenanceClient::new(self.dialer.channel(to, REFUSED_MAX));
            let status = client.status(StatusRequest {}).await?.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(at);
            }
        }
        Err("nobody leads".into())
    }

    async fn lose_things(&mut self) -> Result<()> {
        let leader = self.leader().await?;
        self.cluster.lose(&[leader]).await?;
        let volume = self.cluster.claim(&format!("data-{RELEASE}-rusd-{leader}"));
        fs::remove_dir_all(volume)?;
        self.cluster.make(leader)?;
        self.cluster.wait_until_ready().await?;
        let name = format!("{RELEASE}-rusd-{leader}");
        if !self.cluster.logged(&name).contains("this pod's volume is empty") {
            return Err(format!("{name} should have joined anew").into());
        }
        self.ok("a node lost with its volume", "the leader's; a new member in its place", LOST_MAX).await?;
        self.rolled_at_the_wrong_time().await?;
        self.cluster.lose(&[0, 1, 2]).await?;
        for at in 0..3 {
            self.cluster.make(at)?;
        }
        self.cluster.wait_until_ready().await?;
        self.every_member(&self.writers.acknowledged()).await?;
        self.ok("all nodes lost at once", "their volumes kept, their addresses not", LONG).await?;
        Ok(())
    }

    /// Upgrades while a member is missing: held if it isn't the one that is replaced first, and else let through.
    async fn rolled_at_the_wrong_time(&mut self) -> Result<()> {
        let impatient = "scaleDown.timeout=20s";
        self.cluster.lose(&[0]).await?;
        self.ok("pod 0 lost", "two of three are left", LOST_MAX).await?;
        let before = self.cluster.addresses();
        let other = Release::render(&values(3, NEW, &["server.logLevel=warn", impatient]), true)?;
        let error = self.cluster.upgrade_in_vain(&other).await?;
        let said = self.cluster.logged(&format!("{RELEASE}-rusd-shrink-1"));
        if !error.starts_with("pre-upgrade: ") || !said.contains(&format!("{RELEASE}-rusd-0 doesn't answer")) {
            return Err(format!("the hook should have held it: {error}: {said}").into());
        }
        if self.cluster.addresses() != before {
            return Err("a pod was replaced while another one was lost".into());
        }
        self.ok("rolled while pod 0 is lost", "refused by the hook, the other two go on", REFUSED_MAX).await?;
        self.cluster.make(0)?;
        self.cluster.wait_until_ready().await?;

        let broken = Release::render(&values(3, NEW, &["server.extraArgs[0]=--no-such-flag", impatient]), true)?;
        let error = self.cluster.upgrade_in_vain(&broken).await?;
        if !error.contains(&format!("{RELEASE}-rusd-2 ")) || self.cluster.addresses().len() != 3 {
            return Err(format!("the last pod should be in the way: {error}").into());
        }
        self.ok("a broken upgrade", "it stops at the last pod", REFUSED_MAX).await?;
        self.cluster.upgrade(&other).await?;
        self.ok("mended by the next upgrade", "the last pod is missing, and is replaced first", REFUSED_MAX).await?;
        Ok(())
    }

    /// Whether every member has all that was acknowledged.
    async fn every_member(&self, keys: &BTreeSet<String>) -> Result<()> {
        for at in self.cluster.restarts().keys() {
            let to = SocketAddr::from((self.cluster.address(*at)?, CLIENT_PORT));
            let missing = missing(&self.dialer, to, keys).await?;
            if !missing.is_empty() {
                return Err(format!("acknowledged and not there, at pod {at}: {missing:?}").into());
            }
        }
        Ok(())
    }

    /// Ends the release, and begins another one with the first one's backup.
    async fn restore(mut self) -> Result<usize> {
        let release = Release::render(&values(3, NEW, &[]), true)?;
        let before = self.writers.acknowledged();
        self.cluster.run_job(release.job("-backup")?).await?;
        self.ok("backup", "saved on its claim by the chart's own job", REFUSED_MAX).await?;
        let all = self.writers.end().await?;
        self.every_member(&all).await?;
        println!("ok  every write: {} acknowledged, all of them at each member", all.len());
        self.cluster.uninstall().await?;

        let claim = format!("{RELEASE}-rusd-backup");
        let files: Vec<_> = fs::read_dir(self.cluster.claim(&claim))?.collect::<std::io::Result<_>>()?;
        let [file] = files.as_slice() else { return Err(format!("one backup was made: {files:?}").into()) };
        let restore =
            format!("restore.enabled=true,restore.existingClaim={claim},restore.file={}", file.file_name().display());
        for at in 0..5 {
            let volume = self.cluster.claim(&format!("data-{RELEASE}-rusd-{at}"));
            fs::remove_dir_all(volume)?;
        }
        let begun = Instant::now();
        let release = Release::render(&values(3, NEW, &[&restore]), false)?;
        self.cluster.install(&release).await?;
        self.cluster.test(&release).await?;
        let (dialer, cluster) = (&self.dialer, &self.cluster);
        for at in 0..3 {
            let to = SocketAddr::from((cluster.address(at)?, CLIENT_PORT));
            let missing = missing(dialer, to, &before).await?;
            if !missing.is_empty() {
                return Err(format!("in the backup and not restored, at pod {at}: {missing:?}").into());
            }
        }
        let took = begun.elapsed().as_secs_f64();
        println!("ok  restore: {} keys of the backup at each of three new members ({took:.1} s)", before.len());
        self.cluster.uninstall().await?;
        Ok(self.steps + 2)
    }
}
