// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What nodes say to one another: a JSON object on each line.

use std::io::{ErrorKind, Read};

use serde::{Deserialize, Serialize};

use super::record::{Handshake, NodeId, Record};
use crate::error::{Doing, Error, Result};

/// To be raised with each change of what the messages mean.
pub(super) const VERSION: u32 = 2;

/// The longest line, its end included.
pub(super) const MAX_LINE: usize = 64 << 10;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The first one, of either side.
    Hello { version: u32, node: NodeId },
    /// An association of the sender, as it is now.
    Set(Box<Record>),
    /// It has ended.
    End(u64),
    /// All that the sender has were told on this connection: what the receiver has adopted else
    /// has ended in between.
    All,
    /// Packets of an association that the sender has adopted come to it: it is not to end for lack
    /// of packets at the node that opened it.
    Carried { id: u64, ttl_ms: u64 },
    /// An association that the sender has adopted has been restarted through it, and has other
    /// tags than it was told.
    Restarted {
        id: u64,
        from: Handshake,
        to: Handshake,
    },
}

impl Message {
    pub(super) fn parse(line: &[u8]) -> Result<Self> {
        let message = serde_json::from_slice(line).map_err(|error| {
            let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
            Error::Protocol(format!("a line is malformed ({error}): {start:?}"))
        })?;
        if let Self::Set(record) = &message {
            record.check()?;
        }
        Ok(message)
    }

    pub(super) fn line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).doing(|| "write a message".into())?;
        line.push(b'\n');
        Ok(line)
    }
}

/// What comes from a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(Vec<u8>),
    /// None yet.
    Pending,
    /// The other side has closed it.
    Closed,
}

/// Takes lines from a connection whose reads time out.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Line> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Line::Text(line));
            }
            let room = MAX_LINE - self.buffer.len();
            if room == 0 {
                let problem = format!("a line is longer than {MAX_LINE} bytes");
                return Err(Error::Protocol(problem));
            }
            let mut chunk = [0; 8192];
            let chunk = &mut chunk[..room.min(8192)];
            match self.from.read(chunk) {
                Ok(0) if self.buffer.is_empty() => return Ok(Line::Closed),
                Ok(0) => return Err(Error::Protocol("the last line has no end".into())),
                Ok(len) => self.buffer.extend(&chunk[..len]),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Line::Pending),
                    ErrorKind::ConnectionReset => return Ok(Line::Closed),
                    _ => return Err(error).doing(|| "read from the connection".into()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::share::record::tests::record;

    use rstest::rstest;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let single = Record {
            addrs: None,
            ..record()
        };
        for message in [
            Message::Hello {
                version: 1,
                node: NodeId::MAX,
            },
            Message::Set(Box::new(record())),
            Message::Set(Box::new(single)),
            Message::End(u64::MAX),
            Message::All,
            Message::Restarted {
                id: 1,
                from: record().handshake,
                to: Handshake {
                    tags: [4, u32::MAX],
                    by_backend: true,
                },
            },
            Message::Carried {
                id: 1,
                ttl_ms: 1000,
            },
        ] {
            let mut line = message.line().expect("JSON");
            assert_eq!(line.pop(), Some(b'\n'));
            assert!(!line.contains(&b'\n'));
            assert_eq!(Message::parse(&line).expect("understood"), message);
        }
    }

    #[test]
    fn a_line_is_what_the_manual_says() {
        let hello = Message::Hello {
            version: 1,
            node: NodeId::MIN,
        };
        let text = |message: Message| String::from_utf8(message.line().expect("JSON"));
        assert_eq!(
            text(hello),
            Ok("{\"hello\":{\"version\":1,\"node\":1}}\n".into())
        );
        assert_eq!(text(Message::End(9)), Ok("{\"end\":9}\n".into()));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::no_json("GET / HTTP/1.1")]
    #[case::unknown("{\"begin\": 1}")]
    #[case::two("{\"end\":1}{\"end\":2}")]
    #[case::negative("{\"end\":-1}")]
    #[case::incomplete("{\"set\":{\"id\":1}}")]
    fn what_is_malformed_is_quoted(#[case] line: &str) {
        let error = Message::parse(line.as_bytes()).expect_err("malformed");
        let error = error.to_string();
        assert!(error.starts_with("a line is malformed ("), "{error}");
        assert!(error.ends_with(&format!("{line:?}")), "{error}");
    }

    #[test]
    fn a_record_that_cannot_be_is_refused() {
        let mut wrong = record();
        wrong.handshake.tags[0] = 0;
        let line = Message::Set(Box::new(wrong)).line().expect("JSON");
        assert!(Message::parse(&line).is_err());
    }

    /// Gives its pieces, and times out between them.
    struct Pieces(Vec<&'static [u8]>, bool);

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::WouldBlock.into());
            }
            match self.0.is_empty() {
                true => Ok(0),
                false => self.0.remove(0).read(to),
            }
        }
    }

    fn all(pieces: Vec<&'static [u8]>) -> Result<Vec<String>> {
        let mut lines = Lines::new(Pieces(pieces, false));
        let mut found = Vec::new();
        loop {
            match lines.next()? {
                Line::Text(line) => found.push(String::from_utf8_lossy(&line).into_owned()),
                Line::Pending => {}
                Line::Closed => return Ok(found),
            }
        }
    }

    #[test]
    fn lines_are_found_in_pieces() {
        let found = all(vec![b"a", b"b\n\ncd\ne", b"f", b"\n"]).expect("lines");
        assert_eq!(found, ["ab", "", "cd", "ef"]);
    }

    #[test]
    fn a_line_without_an_end_and_one_that_is_too_long_are_errors() {
        let error = all(vec![b"a\nb"]).expect_err("no end");
        assert_eq!(error.to_string(), "the last line has no end");
        let error = all(vec![&[b'x'; 8192]; 9]).expect_err("too long");
        assert_eq!(error.to_string(), "a line is longer than 65536 bytes");
        let mut fits = vec![&[b'x'; 8192][..]; 7];
        fits.extend([&[b'x'; 8191][..], b"\n"]);
        assert_eq!(all(fits).expect("a line")[0].len(), MAX_LINE - 1);
    }
}
