//! Feed sessions without a gateway around them: over TLS, handed over, spaced, and with an image that
//! takes long to be read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tickfan::clock::Clock;
use tickfan::feed::Feed;
use tickfan::feed::rest::{ImageFetcher, RestError, RestHost, RestQueue};
use tickfan::feed::session::dial::{Dialer, Spacing};
use tickfan::feed::session::line::Turns;
use tickfan::feed::session::{Listings, Session as FeedSession, SessionError};
use tickfan::feed::tls::{Address, Connector};
use tickfan::limits::{BAN_MAX_NS, LARGE_MESSAGE_BYTES, SECOND_NS};
use tickfan::stats::{FeedStats, Stats};
use tickfan::venue::{
    Checksum, DecodeError, ImageDecoder, LargeImage, Resync, Subscription, VenueDecoder,
};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{EventBatch, InstrumentId, Listing, Nanos, State, Trading, Venue};
use tickfan_core::snapshot::{Entry, Registry};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::kraken::{KRAKEN, kraken_snapshot, kraken_update};
use super::{feed, gateway};

// --- TLS.

/// An authority of the test's own, and a certificate that it gave to `name`.
struct Certificates {
    root: CertificateDer<'static>,
    server: Arc<ServerConfig>,
}

fn certificates(name: &str) -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    Certificates { root: authority.der().clone(), server: Arc::new(server) }
}

/// Answers every connection over TLS as a venue without anything; gives the port.
fn serve_over_tls(server: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map(Result::unwrap) {
            tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            // A client that does not trust us says so and leaves. The request is read before it is
            // answered: what is left unread would reset the connection under the answer.
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(answer).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_certificate_must_be_trusted_and_of_that_name() {
    let good = certificates("localhost");
    let other_name = certificates("elsewhere.example");
    let get = |root: Option<&CertificateDer<'static>>, port: u16| {
        let roots: Vec<_> = root.cloned().into_iter().collect();
        let connector = Connector::new(&roots).unwrap();
        let address = Address::parse(&format!("https://localhost:{port}")).unwrap();
        let clock = Clock::start();
        let stats = Stats::default().feed(Venue::Sim);
        runtime().block_on(RestHost::new(connector, address, 60, clock).get("/", 1, &stats))
    };
    let port = serve_over_tls(Arc::clone(&good.server));
    assert_eq!(&get(Some(&good.root), port).unwrap()[..], b"{}");
    let refused = |result: Result<_, RestError>, words: &str| match result {
        Err(RestError::Io(error)) => {
            let error = error.to_string();
            assert!(error.contains(words), "{error}");
        }
        other => panic!("{other:?}"),
    };
    refused(get(None, port), "UnknownIssuer");
    refused(get(Some(&other_name.root), port), "UnknownIssuer");
    let port = serve_over_tls(Arc::clone(&other_name.server));
    refused(get(Some(&other_name.root), port), "not valid for name");
}

/// A feed of Kraken's over `wss://localhost`, run until it is live or has tried three times.
#[test]
fn a_session_speaks_over_tls_and_never_falls_back() {
    let good = certificates("localhost");
    for (root, is_trusted) in [(good.root.clone(), true), (certificates("localhost").root, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::clone(&good.server);
        let (told, heard) = std::sync::mpsc::sync_channel(16);
        std::thread::spawn(move || {
            for tcp in listener.incoming().map(Result::unwrap) {
                let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
                let stream = rustls::StreamOwned::new(connection, tcp);
                match tokio_tungstenite::tungstenite::accept(stream) {
                    Ok(mut socket) => {
                        let snapshot = kraken_snapshot(KRAKEN[0]);
                        socket.send(snapshot.into()).unwrap();
                        while socket.read().is_ok() {}
                    }
                    Err(error) => drop(told.try_send(error.to_string())),
                }
            }
        });
        let stats = Stats::default().feed(Venue::Kraken);
        let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
        run_session(port, &root, &entries, stats.clone(), || {
            let is_live = entries[0].load().book.status.state == State::Live;
            is_live || heard.try_iter().count() > 0
        });
        let is_live = entries[0].load().book.status.state == State::Live;
        assert_eq!((is_live, stats.connects.get()), (is_trusted, u64::from(is_trusted)));
    }
}

/// Runs a session over TLS until something holds.
fn run_session(
    port: u16,
    root: &CertificateDer<'static>,
    entries: &[Arc<Entry>],
    stats: FeedStats,
    until: impl FnMut() -> bool,
) {
    let address = format!("wss://localhost:{port}");
    let dialer = dialer(&address, std::slice::from_ref(root), 0);
    run_sessions(vec![session(&dialer, entries, &stats, None)], until);
}

fn dialer(address: &str, roots: &[CertificateDer<'static>], spacing_ns: Nanos) -> Dialer {
    Dialer {
        connector: Connector::new(roots).unwrap(),
        address: Address::parse(address).unwrap(),
        spacing: Arc::new(Spacing::new(spacing_ns)),
        turns: Turns::new(0, 1),
        clock: Clock::start(),
    }
}

/// A session of Kraken's, whose images come on the stream.
fn session(
    dialer: &Dialer,
    entries: &[Arc<Entry>],
    stats: &FeedStats,
    connection_life_ns: Option<Nanos>,
) -> (FeedSession, Feed) {
    session_of(Venue::Kraken, dialer, entries, stats, connection_life_ns)
}

/// The same of any venue of that kind.
fn session_of(
    venue: Venue,
    dialer: &Dialer,
    entries: &[Arc<Entry>],
    stats: &FeedStats,
    connection_life_ns: Option<Nanos>,
) -> (FeedSession, Feed) {
    let feed = Feed::new(feed::options(venue, entries, stats.clone()));
    let session = FeedSession {
        dialer: dialer.clone(),
        rest: RestQueue::new().0,
        listed: None,
        listings: watch::channel(None).1,
        connection_life_ns,
        stats: stats.clone(),
    };
    (session, feed)
}

/// Runs sessions on one thread until something holds.
fn run_sessions(sessions: Vec<(FeedSession, Feed)>, mut until: impl FnMut() -> bool) {
    let condition = async {
        while !until() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime().block_on(async {
        for (session, feed) in sessions {
            tokio::spawn(session.run(feed));
        }
        tokio::time::timeout(gateway::PATIENCE, condition).await.unwrap();
    });
}

// --- Connections that come and go by plan.

/// A Kraken that greets every connection with the same book, and tells when each came.
fn greeting_kraken() -> (String, std::sync::mpsc::Receiver<Nanos>, Clock) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let (told, came) = std::sync::mpsc::sync_channel(1_000);
    let clock = Clock::start();
    let venue_clock = clock.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map(Result::unwrap) {
            let _ = told.try_send(venue_clock.now());
            std::thread::spawn(move || {
                let Ok(mut socket) = tokio_tungstenite::tungstenite::accept(tcp) else { return };
                socket.send(kraken_snapshot(KRAKEN[0]).into()).unwrap();
                while socket.read().is_ok() {}
            });
        }
    });
    (address, came, clock)
}

#[test]
fn a_connection_of_limited_life_is_handed_over_again_and_again_and_nobody_sees_it() {
    let (address, ..) = greeting_kraken();
    let stats = Stats::default().feed(Venue::Kraken);
    let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
    let mut first_live = None;
    let sessions = vec![session(&dialer(&address, &[], 0), &entries, &stats, Some(3 * SECOND_NS))];
    run_sessions(sessions, || {
        let status = entries[0].load().book.status;
        if status.state == State::Live {
            let first = *first_live.get_or_insert(status);
            assert_eq!(status, first, "the same state in the same epoch");
        }
        assert!(first_live.is_none() || status.state == State::Live, "{status:?}");
        stats.hand_overs.get() == 2
    });
    assert_eq!((stats.connects.get(), stats.disconnects.get()), (3, 2));
}

#[test]
fn connections_come_back_one_by_one() {
    const SPACING_NS: Nanos = SECOND_NS / 5;
    let (address, came, clock) = greeting_kraken();
    let stats = Stats::default().feed(Venue::Kraken);
    let dialer = dialer(&address, &[], SPACING_NS);
    let registry = Registry::new(4);
    let sessions = (0..4)
        .map(|i| {
            let natives = [format!("S{i}/USD").into()];
            let entries = registry.register(Venue::Kraken, &natives, 7, 1).unwrap();
            session(&dialer, &entries, &stats, None)
        })
        .collect();
    let began_ns = clock.now();
    run_sessions(sessions, || stats.connects.get() == 4);
    for (turn, came_ns) in (0..4).zip(came.try_iter()) {
        assert!(came_ns - began_ns >= turn * SPACING_NS, "connection {turn} came early");
    }
}

#[test]
fn a_venue_that_refuses_a_connection_is_left_alone_for_as_long_as_it_says() {
    for (seconds, pause_ns) in [(7, 7 * SECOND_NS), (u64::MAX, BAN_MAX_NS)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let venue = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let refusal = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n";
            write!(stream, "{refusal}retry-after: {seconds}\r\n\r\n").unwrap();
        });
        let dialer = dialer(&address, &[], 0);
        let asked_ns = dialer.clock.now();
        let refused = runtime().block_on(dialer.clone().dial("/".to_owned())).err();
        assert!(matches!(refused, Some(SessionError::Refused { .. })), "{refused:?}");
        venue.join().unwrap();
        let refused_ns = dialer.clock.now();
        let next_ns = dialer.spacing.take(refused_ns);
        let expected_ns = asked_ns + pause_ns..=refused_ns + pause_ns;
        assert!(expected_ns.contains(&next_ns), "{seconds}: {next_ns} of {expected_ns:?}");
    }
}

#[test]
fn who_has_a_turn_already_leaves_a_venue_alone_that_has_refused_another() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let dialer = dialer(&address, &[], SECOND_NS / 10);
    let clock = dialer.clock.clone();
    let venue = std::thread::spawn(move || {
        [(); 2].map(|()| {
            let (mut stream, _) = listener.accept().unwrap();
            let came_ns = clock.now();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let refusal = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n";
            write!(stream, "{refusal}retry-after: 1\r\n\r\n").unwrap();
            came_ns
        })
    });
    runtime().block_on(async {
        let dial = || dialer.clone().dial("/".to_owned());
        let refused = tokio::join!(dial(), dial());
        assert!(refused.0.is_err() && refused.1.is_err());
    });
    let [first_ns, second_ns] = venue.join().unwrap();
    let pause_ns = second_ns - first_ns;
    assert!(pause_ns >= SECOND_NS, "the second came after {pause_ns} ns");
}

/// Takes the next connection, and says something over it.
fn greet(listener: &TcpListener, texts: &[&str]) -> WebSocket<TcpStream> {
    let mut socket = tokio_tungstenite::tungstenite::accept(listener.accept().unwrap().0).unwrap();
    for text in texts {
        socket.send((*text).into()).unwrap();
    }
    socket
}

#[test]
fn the_notice_of_a_connections_end_is_followed_whatever_became_of_the_one_before_it() {
    const BOOK: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["11","1","0","1"]],"bids":[["10","1","0","1"]],"ts":"1597026383085","checksum":0,"prevSeqId":-1,"seqId":100}]}"#;
    const NOTICE: &str = r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let first = greet(&listener, &[BOOK, NOTICE]);
        // The one to hand over to cannot be made: it is tried again, and then the first ends.
        for _ in 0..2 {
            drop(listener.accept().unwrap());
        }
        drop(first);
        let _second = greet(&listener, &[BOOK, NOTICE]);
        let mut third = greet(&listener, &[BOOK]);
        while third.read().is_ok() {}
    });
    let stats = Stats::default().feed(Venue::Okx);
    let entries = Registry::new(1).register(Venue::Okx, &["BTC-USDT".into()], 7, 1).unwrap();
    let dialer = dialer(&address, &[], 0);
    let sessions = vec![session_of(Venue::Okx, &dialer, &entries, &stats, None)];
    run_sessions(sessions, || stats.hand_overs.get() == 1);
    assert_eq!(entries[0].load().book.status.state, State::Live);
}

#[test]
fn what_the_list_says_while_a_connection_is_handed_over_holds_over_the_next() {
    let listed = |trading| -> Listings {
        let native: Arc<str> = KRAKEN[0].into();
        let decimal = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
        let listing = Listing {
            native: Arc::clone(&native),
            base: "AAA".into(),
            quote: "USD".into(),
            kind: "spot".into(),
            tick: decimal("0.01"),
            lot: decimal("0.00000001"),
            trading,
        };
        Some(Arc::new([(native, listing)].into()))
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let (go_on, may_go_on) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let snapshot = kraken_snapshot(KRAKEN[0]);
        let _first = greet(&listener, &[&snapshot]);
        let mut second = greet(&listener, &[]);
        may_go_on.recv().unwrap();
        second.send(snapshot.into()).unwrap();
        while second.read().is_ok() {}
    });

    let stats = Stats::default().feed(Venue::Kraken);
    let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
    let (list, listings) = watch::channel(listed(Trading::Halted));
    for listing in listed(Trading::Halted).iter().flat_map(|listed| listed.values()) {
        entries[0].set_listing(listing.clone());
    }
    let dialer = dialer(&address, &[], 0);
    let (session, feed) = session(&dialer, &entries, &stats, Some(3 * SECOND_NS));
    let session = FeedSession { listed: listed(Trading::Halted), listings, ..session };
    let state = || entries[0].load().book.status.state;
    let mut is_told = false;
    run_sessions(vec![(session, feed)], || {
        // The second connection is there, and has brought nothing yet.
        if !is_told && stats.connects.get() == 2 {
            assert_eq!(state(), State::Halted);
            is_told = list.send(listed(Trading::Open)).is_ok();
        }
        if is_told && state() == State::Live {
            // It may be that it was told so before.
            let _ = go_on.try_send(());
        }
        stats.hand_overs.get() == 1
    });
    assert_eq!(state(), State::Live);
}

#[test]
fn what_the_venue_waits_for_is_said_before_what_else_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let (told, heard) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        const TEST: &str =
            r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#;
        let mut socket = greet(&listener, &[TEST]);
        while let Ok(Message::Text(text)) = socket.read() {
            let text: serde_json::Value = serde_json::from_str(&text).unwrap();
            let _ = told.try_send(text["method"].as_str().unwrap().to_owned());
        }
    });
    let stats = Stats::default().feed(Venue::Deribit);
    let natives = ["BTC-PERPETUAL".into()];
    let entries = Registry::new(1).register(Venue::Deribit, &natives, 7, 1).unwrap();
    let dialer = Dialer { turns: Turns::new(SECOND_NS, 1), ..dialer(&address, &[], 0) };
    let mut methods = Vec::new();
    let sessions = vec![session_of(Venue::Deribit, &dialer, &entries, &stats, None)];
    run_sessions(sessions, || {
        methods.extend(heard.try_iter());
        methods.len() == 2
    });
    assert!(methods.iter().any(|method| method == "public/test"), "{methods:?}");
}

#[test]
fn a_connection_is_handed_over_however_much_comes_over_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let snapshot = kraken_snapshot(KRAKEN[0]);
        let mut first = greet(&listener, &[&snapshot]);
        // Frames of a server, faster than anybody reads them.
        let heartbeat = br#"{"channel":"heartbeat"}"#;
        let frame = [&[0x81, heartbeat.len() as u8][..], heartbeat].concat();
        let frames = frame.repeat(2_000);
        std::thread::spawn(move || while first.get_mut().write_all(&frames).is_ok() {});
        let mut second = greet(&listener, &[&snapshot]);
        while second.read().is_ok() {}
    });
    let stats = Stats::default().feed(Venue::Kraken);
    let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
    let sessions = vec![session(&dialer(&address, &[], 0), &entries, &stats, Some(3 * SECOND_NS))];
    run_sessions(sessions, || stats.hand_overs.get() == 1);
    assert_eq!(entries[0].load().book.status.state, State::Live);
}

// --- Large images.

/// Kraken, if it sent images that take long to be read.
struct Ponderous {
    kraken: Box<dyn VenueDecoder>,
    subscription: Subscription,
}

impl VenueDecoder for Ponderous {
    fn stream_path(&self) -> &str {
        self.kraken.stream_path()
    }

    fn subscribe(&self) -> Vec<String> {
        self.kraken.subscribe()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        self.kraken.resync(instrument, first)
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        self.kraken.decode(message, out)
    }

    fn image_decoder(&self) -> ImageDecoder {
        let subscription = self.subscription.clone();
        Arc::new(move |_, message, out| {
            let mut kraken = tickfan::venue::decoder(Venue::Kraken, subscription.clone());
            kraken.decode(message, out).map_err(|error| error.what)
        })
    }

    fn has_bbo_stream(&self) -> bool {
        false
    }

    fn checksum(&self) -> Option<Checksum> {
        self.kraken.checksum()
    }

    fn silence_ns(&self) -> Nanos {
        self.kraken.silence_ns()
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        None
    }

    fn truncate_at(&self) -> Option<usize> {
        self.kraken.truncate_at()
    }

    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        assert!(message.len() > LARGE_MESSAGE_BYTES);
        Some(LargeImage { instrument: InstrumentId(0), number: None })
    }
}

#[test]
fn an_image_of_five_megabytes_is_read_aside_and_joined_with_what_came_meanwhile() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let stats = Stats::default().feed(Venue::Kraken);
    let natives = KRAKEN.map(Arc::from);
    let entries = Registry::new(2).register(Venue::Kraken, &natives, 7, 1).unwrap();
    let instruments = entries.iter().map(|entry| {
        let instrument = &entry.instrument;
        (instrument.id, Arc::clone(&instrument.native))
    });
    let subscription =
        Subscription { instruments: instruments.collect(), depth: None, trades: None };
    let kraken = tickfan::venue::decoder(Venue::Kraken, subscription.clone());
    let decoder = Ponderous { kraken, subscription };

    let (rest, work) = RestQueue::new();
    let host = RestHost::new(
        Connector::new(&[]).unwrap(),
        Address::parse("http://127.0.0.1:1").unwrap(),
        1,
        Clock::start(),
    );
    let fetcher = ImageFetcher {
        host: Arc::new(host),
        decode: decoder.image_decoder(),
        weight: 1,
        stats: stats.clone(),
    };
    std::thread::spawn(|| runtime().block_on(fetcher.run(work)));
    std::thread::spawn(move || {
        let mut socket =
            tokio_tungstenite::tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let large = kraken_snapshot(KRAKEN[0]) + &" ".repeat(5_080_000);
        let small = kraken_snapshot(KRAKEN[1]);
        for message in [large, small, kraken_update(KRAKEN[0], "2.00000000")] {
            socket.send(message.into()).unwrap();
        }
        while socket.read().is_ok() {}
    });

    let (session, _) = session(&dialer(&address, &[], 0), &entries, &stats, None);
    let options = feed::options(Venue::Kraken, &entries, stats.clone());
    let feed = Feed::with_decoder(options, Box::new(decoder));
    let best_qty = || entries[0].load().book.book.best().0.map(|best| best.qty.0);
    run_sessions(vec![(FeedSession { rest, ..session }, feed)], || {
        entries.iter().all(|entry| entry.load().book.status.state == State::Live)
            // The update that came after it, be it before the image was read or later.
            && best_qty() == Some(200_000_000)
    });
    assert_eq!((stats.images.get(), stats.gaps.get(), stats.malformed.get()), (2, 0, 0));
}
