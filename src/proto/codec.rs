//! An envelope as bytes, in either form, and back.

use prost::Message;

use crate::proto::{EnvelopeError, MAX_MESSAGE_BYTES, Undecodable, check, json_form, v1};

/// The content type of the JSON form.
pub const CONTENT_JSON: &str = "application/json";
/// The content type of the protobuf form.
pub const CONTENT_PROTOBUF: &str = "application/x-protobuf; messageType=\"tol.v1.Envelope\"";

/// The form of an envelope's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Protobuf,
    Json,
}

impl Form {
    /// The form's content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => CONTENT_PROTOBUF,
            Self::Json => CONTENT_JSON,
        }
    }

    /// The form that a content type names; its parameters do not matter.
    ///
    /// # Errors
    /// If it names another.
    pub fn of_content_type(text: &str) -> Result<Self, EnvelopeError> {
        let name = text.split(';').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        if name.eq_ignore_ascii_case("application/x-protobuf") {
            return Ok(Self::Protobuf);
        }
        Err(EnvelopeError::ContentType(text.to_owned()))
    }
}

/// The bytes of an envelope.
///
/// # Errors
/// If it breaks the rules of its type, or is larger than any hop takes.
pub fn encode(envelope: &v1::Envelope, form: Form) -> Result<Vec<u8>, EnvelopeError> {
    check(envelope)?;
    let bytes = match form {
        Form::Protobuf => {
            check_size(envelope.encoded_len())?;
            envelope.encode_to_vec()
        }
        Form::Json => json_form::write(envelope)?,
    };
    check_size(bytes.len())?;
    Ok(bytes)
}

/// How many bytes a task takes in a message of this form, without the envelope around it.
///
/// # Errors
/// If the task cannot be written in this form.
pub fn task_len(task: &v1::Task, form: Form) -> Result<usize, Undecodable> {
    match form {
        Form::Protobuf => Ok(task.encoded_len()),
        Form::Json => json_form::task_len(task),
    }
}

/// How many bytes an outcome takes in a message of this form, without the envelope around it.
///
/// # Errors
/// If the outcome cannot be written in this form.
pub fn outcome_len(outcome: &v1::Outcome, form: Form) -> Result<usize, Undecodable> {
    match form {
        Form::Protobuf => Ok(outcome.encoded_len()),
        Form::Json => json_form::outcome_len(outcome),
    }
}

/// The envelope in these bytes. A field, a priority or the stream of a log line that is not known here is passed over.
///
/// # Errors
/// If they are too many, cannot be read, or break the rules of the message's type.
pub fn decode(bytes: &[u8], form: Form) -> Result<v1::Envelope, EnvelopeError> {
    check_size(bytes.len())?;
    let mut envelope = match form {
        Form::Protobuf => v1::Envelope::decode(bytes)
            .map_err(|error| Undecodable::new(format!("it is no envelope in protobuf: {error}")))?,
        Form::Json => json_form::read(bytes)?,
    };
    if v1::Priority::try_from(envelope.priority).is_err() {
        envelope.priority = v1::Priority::Unspecified.into();
    }
    if let Some(v1::envelope::Payload::Log(log)) = &mut envelope.payload {
        for line in &mut log.lines {
            line.stream = line.stream().into();
        }
    }
    check(&envelope)?;
    Ok(envelope)
}

fn check_size(bytes: usize) -> Result<(), EnvelopeError> {
    if bytes > MAX_MESSAGE_BYTES {
        return Err(EnvelopeError::TooLarge { bytes, limit: MAX_MESSAGE_BYTES });
    }
    Ok(())
}
