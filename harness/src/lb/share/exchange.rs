// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Connections between nodes. Each node tells its associations by the connection that it made, and
//! learns those of others by the ones that it accepted.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::adopt::{Adoption, Directory};
use super::protocol::{Line, Lines, Message, VERSION};
use super::record::{Carried, Handshake, NodeId, Record, Snapshot};
use crate::error::{Doing, Error, Result};
use crate::lb::Maps;

/// How often the maps are read.
const POLL: Duration = Duration::from_millis(100);
/// How often what has not changed is said again, so that it does not expire at the others.
const RENEWAL: Duration = Duration::from_secs(10);
/// How often what has expired is released, and a connection that is lost is tried again.
const SECOND: Duration = Duration::from_secs(1);
/// How long a peer may take to say hello, or to acknowledge what is sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to the exchange, for who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// This node tells its associations to the peer.
    Connected(SocketAddr),
    /// It does not any more, or not yet, for this reason: it tries again.
    Lost(SocketAddr, String),
    /// A peer tells its associations to this node.
    Accepted(SocketAddr),
    /// It does not any more. Its associations stay until they expire.
    Left(SocketAddr, String),
    /// So many associations of the peer are adopted now.
    Adopted(SocketAddr, usize),
    /// An association of the peer is not adopted.
    Skipped {
        /// The peer.
        peer: SocketAddr,
        /// The association: from where
        source: SocketAddr,
        /// to where it goes.
        dest: SocketAddr,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(peer) => write!(f, "connected to {peer}"),
            Self::Lost(peer, why) => write!(f, "not connected to {peer}: {why}"),
            Self::Accepted(peer) => write!(f, "connected from {peer}"),
            Self::Left(peer, why) => write!(f, "lost {peer}: {why}"),
            Self::Adopted(peer, nr) => write!(f, "adopted {nr} associations of {peer}"),
            Self::Skipped {
                peer,
                source,
                dest,
                reason,
            } => write!(
                f,
                "skipped an association of {peer}, from {source} to {dest}: {reason}"
            ),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When what lasts so long is said again.
fn renewal(ttl_ms: u64) -> Duration {
    RENEWAL.min(Duration::from_millis(ttl_ms / 2))
}

/// What a peer has been told, and when.
#[derive(Default)]
struct Told {
    records: HashMap<u64, (Record, Instant)>,
    /// Those that packets came of were told at the time.
    carried: HashMap<u64, (Carried, Option<Instant>)>,
}

impl Told {
    /// What it is to be told now: ends first, as what begins may take the place of what ends.
    fn news(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Message> {
        let mut news = Vec::new();
        self.records.retain(|id, _| {
            let lasts = snapshot.records.contains_key(id);
            if !lasts {
                news.push(Message::End(*id));
            }
            lasts
        });
        for (id, record) in &snapshot.records {
            let told = self.records.get(id);
            if told.is_none_or(|(old, at)| now >= *at + renewal(old.ttl_ms) || !old.is_same(record))
            {
                self.records.insert(*id, (record.clone(), now));
                news.push(Message::Set(Box::new(record.clone())));
            }
        }
        self.add_carried(snapshot, now, &mut news);
        news
    }

    fn add_carried(&mut self, snapshot: &Snapshot, now: Instant, news: &mut Vec<Message>) {
        self.carried
            .retain(|id, _| snapshot.carried.contains_key(id));
        for (&id, carried) in &snapshot.carried {
            // None has come yet of one that is new.
            let fresh = Carried {
                packets: [0; 2],
                handshake: carried.told,
                ..*carried
            };
            let (old, at) = self.carried.entry(id).or_insert((fresh, None));
            let (from, to, ttl_ms) = (old.handshake, carried.handshake, carried.ttl_ms);
            if to != from && to != carried.told {
                news.push(Message::Restarted { id, from, to });
            }
            old.handshake = to;
            let due = at.is_none_or(|at| now >= at + renewal(old.ttl_ms));
            if due && old.packets != carried.packets {
                (*old, *at) = (*carried, Some(now));
                news.push(Message::Carried { id, ttl_ms });
            }
        }
    }
}

/// The associations of a peer, as it tells them.
struct Learned<'a> {
    maps: &'a Maps,
    told: &'a Mutex<HashMap<u64, Handshake>>,
    peer: SocketAddr,
    node: NodeId,
    notice: &'a (dyn Fn(Notice) + Sync),
    directory: Directory,
    directory_read: Instant,
    adopted: HashMap<u64, Record>,
    /// Why others are not, so that it is said once.
    skipped: HashMap<u64, String>,
    said: (usize, Instant),
}

impl<'a> Learned<'a> {
    fn new(running: &'a Running<'_>, peer: SocketAddr, node: NodeId) -> Result<Self> {
        let exchange = running.exchange;
        Ok(Self {
            maps: exchange.maps,
            told: &running.told,
            peer,
            node,
            notice: exchange.notice,
            directory: Directory::read(exchange.maps)?,
            directory_read: Instant::now(),
            adopted: HashMap::new(),
            skipped: HashMap::new(),
            said: (0, Instant::now()),
        })
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Hello { .. } => return Err(Error::Protocol("a second hello".into())),
            Message::Set(record) => self.set(*record)?,
            Message::End(id) => {
                self.skipped.remove(&id);
                self.adopted.remove(&id);
                self.maps.release(id)?;
            }
            Message::All => {
                let told = |id| self.adopted.contains_key(&id);
                self.maps.release_others(self.node, told)?;
            }
            Message::Carried { id, ttl_ms } => {
                self.maps.renew(id, ttl_ms, None)?;
            }
            Message::Restarted { id, from, to } => {
                self.maps.restart(id, from, to)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, record: Record) -> Result<()> {
        let known = self.adopted.get(&record.id);
        // What packets have changed here may be newer than a record that only is said again.
        if known.is_some_and(|known| known.is_same(&record))
            && self.maps.renew(record.id, record.ttl_ms, Some(self.node))?
        {
            return Ok(());
        }
        if self.directory_read.elapsed() >= SECOND {
            self.directory = Directory::read(self.maps)?;
            self.directory_read = Instant::now();
        }
        let told = locked(self.told).get(&record.id).copied();
        let adopted = (self.maps).adopt_by(self.node, &record, told, &self.directory);
        match adopted {
            Ok(Adoption::Done) => {
                self.skipped.remove(&record.id);
                locked(self.told).insert(record.id, record.handshake);
                self.adopted.insert(record.id, record);
            }
            Ok(Adoption::Refused(refusal)) => {
                self.adopted.remove(&record.id);
                self.skip(&record, refusal.to_string());
            }
            // There is no room: others may find some, and this one later.
            Err(error) => self.skip(&record, error.to_string()),
        }
        Ok(())
    }

    fn skip(&mut self, record: &Record, reason: String) {
        if self.skipped.get(&record.id) == Some(&reason) {
            return;
        }
        self.skipped.insert(record.id, reason.clone());
        (self.notice)(Notice::Skipped {
            peer: self.peer,
            source: record.original.source,
            dest: record.original.dest,
            reason,
        });
    }

    /// Says how many there are, once a second if it changes.
    fn report(&mut self) {
        let (nr, at) = self.said;
        if nr != self.adopted.len() && at.elapsed() >= SECOND {
            self.said = (self.adopted.len(), Instant::now());
            (self.notice)(Notice::Adopted(self.peer, self.adopted.len()));
        }
    }
}

/// Tells peers of this node's associations, and adopts theirs.
pub struct Exchange<'a> {
    /// This node's maps.
    pub maps: &'a Maps,
    /// Where peers connect to.
    pub listener: TcpListener,
    /// Where they listen.
    pub peers: Vec<SocketAddr>,
    /// Hears what happens.
    pub notice: &'a (dyn Fn(Notice) + Sync),
    /// To be set when it is to stop, which it does within some seconds; it also sets it itself
    /// when it fails.
    pub stop: &'a AtomicBool,
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("listener", &self.listener)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// What the threads of an exchange share.
struct Running<'a> {
    exchange: &'a Exchange<'a>,
    node: NodeId,
    /// What is to be told, as it was last read.
    snapshot: Mutex<Arc<Snapshot>>,
    /// The handshakes of what is adopted, as others told them last.
    told: Mutex<HashMap<u64, Handshake>>,
}

impl<'a> Exchange<'a> {
    /// Exchanges associations until it is told to stop.
    ///
    /// # Errors
    /// If this node's maps cannot be read, or connections not be accepted. What peers do wrong is
    /// a [`Notice`].
    pub fn run(&'a self) -> Result<()> {
        let doing = || "accept connections".to_string();
        self.listener.set_nonblocking(true).doing(doing)?;
        let mut names = HashMap::new();
        let running = Running {
            exchange: self,
            node: self.maps.node()?,
            snapshot: Mutex::default(),
            told: Mutex::default(),
        };
        running.look(&mut names)?;
        let running = &running;
        thread::scope(|scope| {
            for peer in &self.peers {
                scope.spawn(|| running.tell(*peer));
            }
            let accepting = scope.spawn(move || running.accept(scope));
            let polled = running.poll(&mut names);
            self.stop.store(true, Ordering::Relaxed);
            polled.and(accepting.join().unwrap_or(Ok(())))
        })
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn prepare(stream: &TcpStream, read_timeout: Duration) -> Result<()> {
    let doing = || "prepare a connection".to_string();
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(PATIENCE)
        .with_interval(SECOND);
    stream.set_nonblocking(false).doing(doing)?;
    stream.set_nodelay(true).doing(doing)?;
    stream.set_read_timeout(Some(read_timeout)).doing(doing)?;
    stream.set_write_timeout(Some(PATIENCE)).doing(doing)?;
    socket.set_tcp_keepalive(&keepalive).doing(doing)?;
    socket.set_tcp_user_timeout(Some(PATIENCE)).doing(doing)
}

fn send(stream: &mut TcpStream, messages: &[Message]) -> Result<()> {
    let mut lines = Vec::new();
    for message in messages {
        lines.extend(message.line()?);
    }
    stream.write_all(&lines).doing(|| "send".into())
}

impl Running<'_> {
    fn poll(&self, names: &mut HashMap<u32, String>) -> Result<()> {
        let maps = self.exchange.maps;
        let mut released = Instant::now();
        while !self.exchange.is_over() {
            thread::sleep(POLL);
            maps.check_pinned()?;
            self.look(names)?;
            if released.elapsed() >= SECOND {
                maps.release_expired()?;
                released = Instant::now();
            }
        }
        Ok(())
    }

    /// Reads the maps.
    fn look(&self, names: &mut HashMap<u32, String>) -> Result<()> {
        // What was told before: what the maps had then is no news, and what they have now is.
        let told = locked(&self.told).clone();
        let snapshot = Snapshot::read(self.exchange.maps, names, &told)?;
        let is_over = |id: &u64| told.contains_key(id) && !snapshot.carried.contains_key(id);
        locked(&self.told).retain(|id, _| !is_over(id));
        *locked(&self.snapshot) = Arc::new(snapshot);
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&locked(&self.snapshot))
    }

    fn hello(&self) -> Message {
        Message::Hello {
            version: VERSION,
            node: self.node,
        }
    }

    /// Waits for the peer's first line. Returns who it is.
    fn greet(&self, lines: &mut Lines<&TcpStream>) -> Result<NodeId> {
        let protocol = |problem: String| Err(Error::Protocol(problem));
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !self.exchange.is_over() {
            let line = match lines.next()? {
                Line::Text(line) => line,
                Line::Pending => continue,
                Line::Closed => return protocol("it has closed the connection".into()),
            };
            return match Message::parse(&line)? {
                Message::Hello { version, .. } if version != VERSION => protocol(format!(
                    "it speaks version {version}, and this node {VERSION}: run the same sctp-lb \
                     on both"
                )),
                Message::Hello { node, .. } if node == self.node => {
                    protocol("it is this node itself".into())
                }
                Message::Hello { node, .. } => Ok(node),
                _ => protocol("it does not say hello first".into()),
            };
        }
        protocol("it does not say hello".into())
    }

    /// Tells the peer, on one connection after the other.
    fn tell(&self, peer: SocketAddr) {
        let mut last = String::new();
        while !self.exchange.is_over() {
            let mut connected = false;
            let result = self.tell_once(peer, &mut connected);
            if let Err(error) = result {
                let why = error.to_string();
                if connected || why != last {
                    (self.exchange.notice)(Notice::Lost(peer, why.clone()));
                }
                last = why;
            }
            thread::sleep(SECOND);
        }
    }

    fn tell_once(&self, peer: SocketAddr, connected: &mut bool) -> Result<()> {
        let mut stream =
            TcpStream::connect_timeout(&peer, SECOND).doing(|| "connect to it".into())?;
        prepare(&stream, POLL)?;
        send(&mut stream, &[self.hello()])?;
        self.greet(&mut Lines::new(&stream))?;
        *connected = true;
        (self.exchange.notice)(Notice::Connected(peer));
        let mut told = Told::default();
        let mut all = vec![Message::All];
        while !self.exchange.is_over() {
            let mut news = told.news(&self.snapshot(), Instant::now());
            news.append(&mut all);
            send(&mut stream, &news)?;
            wait(&stream)?;
        }
        Ok(())
    }

    fn accept<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Result<()> {
        while !self.exchange.is_over() {
            match self.exchange.listener.accept() {
                Ok((stream, peer)) => {
                    scope.spawn(move || {
                        if let Err(error) = self.learn(&stream, peer) {
                            (self.exchange.notice)(Notice::Left(peer, error.to_string()));
                        }
                    });
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => thread::sleep(POLL),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.exchange.stop.store(true, Ordering::Relaxed);
                        return Err(error).doing(|| "accept connections".into());
                    }
                },
            }
        }
        Ok(())
    }

    fn learn(&self, mut stream: &TcpStream, peer: SocketAddr) -> Result<()> {
        prepare(stream, POLL)?;
        let mut lines = Lines::new(stream);
        let hello = self.hello().line()?;
        stream.write_all(&hello).doing(|| "say hello".into())?;
        let node = self.greet(&mut lines)?;
        (self.exchange.notice)(Notice::Accepted(peer));
        let mut learned = Learned::new(self, peer, node)?;
        while !self.exchange.is_over() {
            match lines.next()? {
                Line::Text(line) => learned.take(Message::parse(&line)?)?,
                Line::Pending => {}
                Line::Closed => {
                    return Err(Error::Protocol("it has closed the connection".into()));
                }
            }
            learned.report();
        }
        Ok(())
    }
}

/// Waits for the next look at the maps. The peer says nothing more, but may leave.
fn wait(stream: &TcpStream) -> Result<()> {
    match stream.peek(&mut [0]) {
        Ok(0) => Err(Error::Protocol("it has closed the connection".into())),
        Ok(_) => Err(Error::Protocol("it says what is not its turn".into())),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
                Ok(())
            }
            _ => Err(error).doing(|| "wait".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::share::record::tests::record;

    fn snapshot(records: &[Record], carried: &[(u64, Carried)]) -> Snapshot {
        let carried = carried.iter().copied();
        Snapshot {
            records: records.iter().map(|r| (r.id, r.clone())).collect(),
            carried: carried.collect(),
        }
    }

    #[test]
    fn a_peer_is_told_what_changes_and_all_again_in_time() {
        let set = |record: &Record| Message::Set(Box::new(record.clone()));
        let mut told = Told::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let one = record();
        assert_eq!(
            told.news(&snapshot(std::slice::from_ref(&one), &[]), at(0)),
            [set(&one)]
        );
        let mut later = one.clone();
        later.ttl_ms -= 1;
        assert_eq!(told.news(&snapshot(&[later.clone()], &[]), at(9)), []);
        assert_eq!(
            told.news(&snapshot(&[later.clone()], &[]), at(10)),
            [set(&later)]
        );
        let mut changed = later.clone();
        changed.handshake.tags[0] = 7;
        assert_eq!(
            told.news(&snapshot(&[changed.clone()], &[]), at(11)),
            [set(&changed)]
        );
        let next = Record { id: 5, ..changed };
        let news = told.news(&snapshot(std::slice::from_ref(&next), &[]), at(12));
        assert_eq!(news, [Message::End(one.id), set(&next)]);
        assert_eq!(told.news(&snapshot(&[], &[]), at(13)), [Message::End(5)]);
        assert_eq!(told.news(&snapshot(&[], &[]), at(30)), []);
    }

    #[test]
    fn packets_of_adopted_associations_are_told_of_now_and_then() {
        let ttl_ms = 60_000;
        let carried = [Message::Carried { id: 1, ttl_ms }];
        let mut told = Told::default();
        let start = Instant::now();
        let of = |tags| Handshake {
            tags,
            by_backend: false,
        };
        let mut news = |seconds, packets, tags| {
            let now = start + Duration::from_secs(seconds);
            let carried = Carried {
                packets: [packets, 0],
                handshake: of(tags),
                told: of([2, 3]),
                ttl_ms,
            };
            told.news(&snapshot(&[], &[(1, carried)]), now)
        };
        assert_eq!(news(0, 0, [2, 3]), []);
        assert_eq!(news(1, 1, [2, 3]), carried);
        assert_eq!(news(5, 2, [2, 3]), []);
        assert_eq!(news(11, 2, [2, 3]), carried);
        assert_eq!(news(30, 2, [2, 3]), []);
        let restarted = Message::Restarted {
            id: 1,
            from: of([2, 3]),
            to: of([4, 5]),
        };
        assert_eq!(news(31, 2, [4, 5]), [restarted]);
        assert_eq!(news(32, 2, [4, 5]), []);
        // Before the first is told back.
        let again = Message::Restarted {
            id: 1,
            from: of([4, 5]),
            to: of([6, 7]),
        };
        assert_eq!(news(33, 2, [6, 7]), [again]);
    }

    #[test]
    fn what_lasts_short_is_said_again_sooner() {
        let short = Record {
            ttl_ms: 3000,
            ..record()
        };
        let snapshot = snapshot(std::slice::from_ref(&short), &[]);
        let mut told = Told::default();
        let start = Instant::now();
        let mut nr_said = |ms| {
            told.news(&snapshot, start + Duration::from_millis(ms))
                .len()
        };
        assert_eq!(
            [0, 1499, 1500, 2999, 3000].map(&mut nr_said),
            [1, 0, 1, 0, 1]
        );
    }
}
