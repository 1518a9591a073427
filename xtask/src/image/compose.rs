//! The compose file's members, each in a container on a wire of their own, with the names that compose gives them.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::container::{Container, Net, Plan, volume};
use super::network::Wire;
use super::story::Unpacked;
use crate::report::{Tried, expect, passed, skipped};
use crate::{peers, sh, yaml};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The network of the wire.
const NET: &str = "198.18.77";
const WELL_MAX: Duration = Duration::from_secs(60);

struct Service {
    name: String,
    args: Vec<String>,
    health: Vec<String>,
    /// Where its one volume lies inside.
    data: String,
}

fn services(text: &str) -> Result<Vec<Service>> {
    let file = yaml::documents(text)?.into_iter().next().ok_or("an empty file")?;
    let services = file["services"].as_object().ok_or("a file without services")?;
    services.iter().map(|(name, service)| read(name, service)).collect()
}

fn read(name: &str, service: &Value) -> Result<Service> {
    let test = yaml::texts(&service["healthcheck"]["test"]);
    let [kind, health @ ..] = &test[..] else { return Err(format!("{name} has no health check").into()) };
    expect(kind == "CMD", format!("{name}: the image has no shell for {kind}"))?;
    expect(service["read_only"] == true && service["cap_drop"][0] == "ALL", format!("{name} may do too much"))?;
    let volumes = yaml::texts(&service["volumes"]);
    let data = volumes.first().and_then(|volume| volume.split_once(':')).ok_or("a service without a volume")?.1;
    Ok(Service {
        name: name.to_owned(),
        args: yaml::texts(&service["command"]),
        health: health.to_vec(),
        data: data.to_owned(),
    })
}

/// Three members, each in its container: all are well; one is killed, and the others serve; it comes back.
pub(super) fn runs(image: &Unpacked) -> Tried {
    let services = services(&fs::read_to_string(sh::root().join("packaging/compose.yaml"))?)?;
    let addresses: Vec<String> = (1..=services.len()).map(|at| format!("{NET}.{at}")).collect();
    let wire = match Wire::joined("compose", &addresses) {
        Ok(wire) => wire,
        Err(error) => return skipped(format!("no network namespaces here: {error}")),
    };
    let hosts = sh::target().join("image/hosts");
    let names = services.iter().zip(&addresses).map(|(service, address)| format!("{address} {}\n", service.name));
    fs::write(&hosts, std::iter::once("127.0.0.1 localhost\n".to_owned()).chain(names).collect::<String>())?;
    let volumes = services.iter().map(|service| volume(&service.name, &image.config)).collect::<Result<Vec<_>>>()?;
    let start = |at: usize| {
        let service = &services[at];
        Container::start(&Plan {
            name: &service.name,
            root: &image.root,
            config: &image.config,
            command: None,
            args: service.args.clone(),
            mounts: vec![(volumes[at].clone(), service.data.clone()), (hosts.clone(), "/etc/hosts".to_owned())],
            net: Net::Named(wire.machine(at).to_owned()),
        })
    };
    let mut members = (0..services.len()).map(start).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let well = |members: &[Container]| -> Result<()> {
        let begun = Instant::now();
        for (at, member) in members.iter().enumerate() {
            let health: Vec<&str> = services[at].health.iter().map(String::as_str).collect();
            loop {
                let output = member.exec(&health)?;
                if output.status.success() {
                    break;
                }
                if begun.elapsed() > WELL_MAX {
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    return Err(format!("{} isn't well: {said}\n{}", services[at].name, member.tail()).into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    };
    well(&members)?;
    let ready = begun.elapsed();
    let etcdctl = peers::directory().join("etcdctl");
    let ask = |member: &Container, args: &[&str]| -> Result<String> {
        let output = member.in_network(&etcdctl, args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        expect(output.status.success(), format!("etcdctl {}: {said}", args.join(" ")))?;
        Ok(said)
    };
    ask(&members[0], &["put", "greeting", "hello"])?;
    // A container that is gone at once, as by a kill.
    drop(members.remove(1));
    let begun = Instant::now();
    // It may have led.
    while ask(&members[0], &["put", "greeting", "again"]).is_err() {
        expect(begun.elapsed() < WELL_MAX, format!("two of three don't serve:\n{}", members[0].tail()))?;
    }
    members.insert(1, start(1)?);
    well(&members)?;
    expect(ask(&members[1], &["get", "greeting", "--print-value-only"])?.trim() == "again", "the value is another")?;
    let count = members.len();
    for member in &mut members {
        member.stop()?;
    }
    drop(members);
    volumes.iter().try_for_each(fs::remove_dir_all)?;
    passed(format!(
        "{count} members well after {} ms by their own health checks; one killed, two serve, it comes back",
        ready.as_millis()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compose_file_has_three_members_that_know_each_other() {
        let text = fs::read_to_string(sh::root().join("packaging/compose.yaml")).expect("it is there");
        let services = services(&text).expect("services");
        assert_eq!(services.len(), 3);
        for service in &services {
            for other in &services {
                let part = format!("{0}=http://{0}:2380", other.name);
                assert!(service.args.iter().any(|arg| arg.contains(&part)), "{}: {part}", service.name);
            }
            assert_eq!(service.data, super::super::assemble::DATA);
        }
    }

    #[test]
    fn a_member_that_may_do_too_much_is_refused() {
        let service = "{command: [], healthcheck: {test: [CMD, a]}, cap_drop: [ALL], volumes: ['a:/b']";
        assert!(services(&format!("services: {{a: {service}, read_only: true}}}}")).is_ok());
        assert!(services(&format!("services: {{a: {service}}}}}")).is_err());
        assert!(services("services: {a: {healthcheck: {test: [CMD-SHELL, a]}}}").is_err());
    }
}
