//! One pod, as kubelet keeps it: started, asked by its probes, started again when it ends, ended in peace or not.
//!
//! ```text
//! container starts ─► startup probe ─► liveness and readiness probes ─┬► ends, or isn't alive ─► a pause ─► starts again
//!                                                                     └► to be deleted ─► SIGTERM ─► grace ─► SIGKILL
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Result;
use super::container::{self, Container, Settings};
use super::network::Place;
use super::spec::{PodSpec, Probe};

/// How often anything is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Before a container is started for the third time; twice as long before each one after that.
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// Looks a container's variables up.
pub(super) type Environment = Box<dyn Fn() -> std::result::Result<Vec<(String, String)>, String> + Send + Sync>;

/// What a pod is made of.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) full_name: String,
    pub(super) resolver: String,
    pub(super) program: PathBuf,
    pub(super) spec: PodSpec,
    pub(super) volumes: Vec<PathBuf>,
    pub(super) root: PathBuf,
    pub(super) log: PathBuf,
    /// Its variables, looked up anew at each start.
    pub(super) env: Environment,
    /// Whether it is started again when it ends.
    pub(super) is_kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Delete,
    /// Its node is gone, without a word.
    Lose,
}

/// A pod that runs; dropped, it is killed.
pub(super) struct Pod {
    pub(super) address: Ipv4Addr,
    order: watch::Sender<Order>,
    state: Arc<State>,
    keeper: JoinHandle<bool>,
}

#[derive(Default)]
struct State {
    ready_since: Mutex<Option<Instant>>,
    restarts: AtomicU32,
    is_over: AtomicBool,
}

impl State {
    fn set_ready(&self, is_ready: bool) {
        let mut since = self.ready_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = is_ready.then(|| since.unwrap_or_else(Instant::now));
    }
}

impl Pod {
    pub(super) fn start(plan: Plan, place: Place) -> Self {
        let (order, orders) = watch::channel(Order::Run);
        let state = Arc::new(State::default());
        let address = place.address;
        let keeper = tokio::spawn(keep(plan, place, orders, state.clone()));
        Self { address, order, state, keeper }
    }

    /// How long its readiness probe has been well.
    pub(super) fn ready_for(&self) -> Option<Duration> {
        let since = *self.state.ready_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed())
    }

    /// How often its container was started again.
    pub(super) fn restarts(&self) -> u32 {
        self.state.restarts.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself.
    pub(super) fn is_over(&self) -> bool {
        self.state.is_over.load(Ordering::Relaxed)
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_finished(&self) -> bool {
        self.keeper.is_finished()
    }

    /// Asks it to end: it isn't ready from now on. [`Pod::gone`] waits for that.
    pub(super) fn delete(&self) {
        self.state.set_ready(false);
        self.order.send_replace(Order::Delete);
    }

    /// Its node is gone.
    pub(super) fn lose(&self) {
        self.state.set_ready(false);
        self.order.send_replace(Order::Lose);
    }

    /// Waits for its end; whether it was a good one.
    pub(super) async fn gone(mut self) -> Result<bool> {
        Ok((&mut self.keeper).await?)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Keeps it until it is deleted or, if it isn't to be kept, has ended; whether it ended well.
async fn keep(plan: Plan, place: Place, mut orders: watch::Receiver<Order>, state: Arc<State>) -> bool {
    let mut pause = BACK_OFF;
    loop {
        let started = (plan.env)().and_then(|env| {
            container::start(&Settings {
                name: &plan.name,
                space: &place.space,
                address: place.address,
                program: &plan.program,
                spec: &plan.spec,
                env: &env,
                volumes: &plan.volumes,
                resolver: &plan.resolver,
                full_name: &plan.full_name,
                root: &plan.root,
                log: &plan.log,
            })
            .map_err(|error| error.to_string())
        });
        let container = match started {
            Ok(container) => container,
            Err(error) => {
                eprintln!("pods: {}: {error}", plan.name);
                state.is_over.store(true, Ordering::Relaxed);
                return false;
            }
        };
        let ended = live(&plan, &place, container, &mut orders, &state).await;
        state.set_ready(false);
        match ended {
            Ended::AsTold => return true,
            Ended::ByItself(well) if !plan.is_kept => {
                state.is_over.store(true, Ordering::Relaxed);
                return well;
            }
            Ended::ByItself(_) => {}
        }
        // The first time at once, as kubelet does.
        if state.restarts.fetch_add(1, Ordering::Relaxed) > 0 {
            let told = tokio::time::timeout(pause, orders.wait_for(|order| *order != Order::Run)).await;
            if told.is_ok() {
                return true;
            }
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }
}

enum Ended {
    AsTold,
    ByItself(bool),
}

/// One life of its container.
async fn live(
    plan: &Plan,
    place: &Place,
    mut container: Container,
    orders: &mut watch::Receiver<Order>,
    state: &State,
) -> Ended {
    let probes = &plan.spec.probes;
    let mut startup = Asker::new(probes.startup.as_ref());
    let mut liveness = Asker::new(probes.liveness.as_ref());
    let mut readiness = Asker::new(probes.readiness.as_ref());
    loop {
        let order = *orders.borrow_and_update();
        if order != Order::Run {
            // A probe may have said otherwise since the order came.
            state.set_ready(false);
        }
        match order {
            Order::Run => {}
            Order::Delete => {
                container.terminate();
                if tokio::time::timeout(plan.spec.grace, container.ended()).await.is_err() {
                    eprintln!("pods: {}: not ended within {:?}", plan.name, plan.spec.grace);
                    container.kill();
                    container.ended().await;
                }
                return Ended::AsTold;
            }
            Order::Lose => {
                if let Err(error) = place.unplug() {
                    eprintln!("pods: {}: {error}", plan.name);
                }
                container.kill();
                container.ended().await;
                return Ended::AsTold;
            }
        }
        tokio::select! {
            well = container.ended() => return Ended::ByItself(well),
            _ = orders.changed() => continue,
            () = tokio::time::sleep(TICK) => {}
        }
        if !startup.is_passed() {
            startup.ask(place.address).await;
        } else {
            liveness.ask(place.address).await;
            if readiness.ask(place.address).await {
                state.set_ready(!readiness.has_failed());
            }
            if plan.spec.probes.readiness.is_none() {
                state.set_ready(true);
            }
        }
        if startup.has_failed() || liveness.has_failed() {
            eprintln!("pods: {}: its probe failed: it is started again", plan.name);
            container.terminate();
            if tokio::time::timeout(plan.spec.grace, container.ended()).await.is_err() {
                container.kill();
                container.ended().await;
            }
            return Ended::ByItself(false);
        }
    }
}

/// A probe and what it heard of late.
struct Asker<'a> {
    probe: Option<&'a Probe>,
    next: Instant,
    failures: u32,
    has_passed: bool,
}

impl<'a> Asker<'a> {
    fn new(probe: Option<&'a Probe>) -> Self {
        Self { probe, next: Instant::now(), failures: 0, has_passed: probe.is_none() }
    }

    /// Whether it has ever been well.
    fn is_passed(&self) -> bool {
        self.has_passed
    }

    /// Whether it has failed so often that it means something; a probe that was never well hasn't passed either.
    fn has_failed(&self) -> bool {
        self.probe.is_some_and(|probe| self.failures >= probe.failures)
    }

    /// Asks if it is time to; whether that says something new about being ready.
    async fn ask(&mut self, address: Ipv4Addr) -> bool {
        let Some(probe) = self.probe.filter(|_| self.next <= Instant::now()) else { return false };
        self.next = Instant::now() + probe.period;
        if is_well(probe, address).await {
            (self.failures, self.has_passed) = (0, true);
            return true;
        }
        self.failures += 1;
        self.has_failed()
    }
}

async fn is_well(probe: &Probe, address: Ipv4Addr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(SocketAddr::from((address, probe.port))).await.ok()?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", probe.path);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.ok()?;
        std::str::from_utf8(&answer[9..]).ok()?.parse::<u16>().ok()
    };
    // As kubelet counts it.
    matches!(tokio::time::timeout(probe.timeout, asked).await, Ok(Some(200..=399)))
}
