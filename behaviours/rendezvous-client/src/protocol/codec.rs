//! One message each way on a stream of its own, each with its length in front.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;

use super::{Expected, MAX_MESSAGE_BYTES, Request, Response};
use crate::protobuf::varint;

/// Reads and writes the streams. It remembers what it wrote, since one copy serves one stream; so answers are checked,
/// signatures too, in the connection's task.
#[derive(Clone, Debug, Default)]
pub struct Codec {
    expected: Option<Expected>,
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &Self::Protocol, _: &mut T) -> io::Result<Self::Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &Self::Protocol, io: &mut T) -> io::Result<Self::Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let expected = self.expected.take().ok_or(io::ErrorKind::Unsupported)?;
        if expected == Expected::Nothing {
            // The server says nothing and closes; whichever way it ends, it is the end. Not to wait for it would cut off
            // what is still to be sent.
            let _ = io.read(&mut [0]).await;
            return Ok(Response::Nothing);
        }
        let Some(length) = read_length(io).await? else {
            // Too long, which an honest seed's list becomes when others fill it: a list that failed, and nobody's fault.
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut bytes = Vec::new();
        // Memory is taken for what comes, not for what is announced.
        let read = io.take(length as u64).read_to_end(&mut bytes).await?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Response::decode(&bytes, &expected))
    }

    async fn write_request<T>(&mut self, _: &Self::Protocol, io: &mut T, request: Self::Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = request.encode();
        let mut framed = Vec::with_capacity(message.len() + 4);
        varint(message.len() as u64, &mut framed);
        framed.extend_from_slice(&message);
        self.expected = Some(request.expects());
        io.write_all(&framed).await
    }

    async fn write_response<T>(&mut self, _: &Self::Protocol, _: &mut T, _: Self::Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The length in front of a message; nothing if it is longer than a message may be.
async fn read_length<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Option<usize>> {
    let mut length = 0;
    // Three bytes reach beyond the longest message.
    for shift in [0, 7, 14] {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(length).filter(|length| *length <= MAX_MESSAGE_BYTES));
        }
    }
    Ok(None)
}
