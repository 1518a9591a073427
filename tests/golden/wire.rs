//! gRPC calls by name: messages go in and come out as raw bytes, the schema says what they mean.
//!
//! ```text
//! "KV.Range" + text ─► Schema::method ─► DynamicMessage ─► Raw codec ─► tonic ─► bytes ─► DynamicMessage
//! ```
//!
//! One code path serves every method of every service, also those that our own client would refuse to send.

use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The wire schema that conversations speak of.
pub(crate) struct Schema(DescriptorPool);

impl Schema {
    pub(crate) fn load() -> Self {
        Self(DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors are well formed"))
    }

    /// The method that `Service.Method` names.
    pub(crate) fn method(&self, name: &str) -> Result<MethodDescriptor, String> {
        let (service, method) = name.split_once('.').ok_or_else(|| format!("`{name}` is not Service.Method"))?;
        self.0
            .services()
            .filter(|s| s.name() == service)
            .find_map(|s| s.methods().find(|m| m.name() == method))
            .ok_or_else(|| format!("no method `{name}`"))
    }
}

/// The path of a method's requests.
pub(crate) fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Text of a message as protobuf's text format has it.
pub(crate) fn parse(kind: MessageDescriptor, text: &str) -> Result<Bytes, String> {
    DynamicMessage::parse_text_format(kind, text)
        .map(|message| Bytes::from(message.encode_to_vec()))
        .map_err(|error| format!("{error}: {}", text.chars().take(200).collect::<String>()))
}

/// How one call is made besides its message.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallOptions {
    pub(crate) gzip: bool,
    pub(crate) metadata: Vec<(String, String)>,
}

/// One connection to a server.
#[derive(Clone)]
pub(crate) struct Wire(Channel);

impl Wire {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    pub(crate) async fn unary(&self, path: &str, message: Bytes, options: &CallOptions) -> Result<Bytes, Status> {
        let mut grpc = self.grpc(options).await?;
        let request = request(message, options)?;
        Ok(grpc.unary(request, path_and_query(path)?, Raw).await?.into_inner())
    }

    pub(crate) async fn streaming(
        &self,
        path: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
        options: &CallOptions,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.grpc(options).await?;
        let request = request(messages.boxed(), options)?;
        Ok(grpc.streaming(request, path_and_query(path)?, Raw).await?.into_inner())
    }

    async fn grpc(&self, options: &CallOptions) -> Result<Grpc<Channel>, Status> {
        let mut grpc =
            Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
        if options.gzip {
            // A server may answer in the encoding of the request.
            grpc = grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        grpc.ready().await.map_err(|error| Status::unavailable(format!("no connection: {error}")))?;
        Ok(grpc)
    }
}

fn path_and_query(path: &str) -> Result<PathAndQuery, Status> {
    path.parse().map_err(|_| Status::invalid_argument(format!("bad path `{path}`")))
}

fn request<T>(message: T, options: &CallOptions) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    for (key, value) in &options.metadata {
        let bad = || Status::invalid_argument(format!("bad metadata `{key}`"));
        let name: AsciiMetadataKey = key.parse().map_err(|_| bad())?;
        request.metadata_mut().insert(name, MetadataValue::try_from(value.as_str()).map_err(|_| bad())?);
    }
    Ok(request)
}

/// Lets bytes through as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
