//! Deleting objects.

use s3s::dto;
use s3s::{S3Response, s3_error};
use shepherd_storage::buckets::Condition;

use super::{Answer, Store, only_version};
use crate::conditions;
use crate::error::answer;
use crate::listing::{MOST, is_xml_text, key};

impl Store {
    pub(super) async fn delete(&self, input: dto::DeleteObjectInput) -> Answer<dto::DeleteObjectOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        only_version(input.version_id.as_deref())?;
        let asks_more = input.if_match_last_modified_time.is_some() || input.if_match_size.is_some();
        if asks_more {
            return Err(s3_error!(NotImplemented, "Of conditions on a delete only If-Match is implemented"));
        }
        let condition = match input.if_match {
            None => Condition::Always,
            if_match => conditions::of_write(if_match, None)?,
        };
        self.buckets.delete(&bucket, &key, condition).await.map_err(answer)?;
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_many(
        &self,
        input: dto::DeleteObjectsInput,
    ) -> Answer<dto::DeleteObjectsOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let named = input.delete.objects;
        let is_document = named.iter().all(|object| is_xml_text(&object.key));
        if named.is_empty() || named.len() > MOST || !is_document {
            return Err(s3_error!(MalformedXML));
        }
        let mut keys = Vec::new();
        let mut errors = Vec::new();
        for object in named {
            let refused = match (key(&object.key), only_version(object.version_id.as_deref())) {
                _ if object.e_tag.is_some()
                    || object.size.is_some()
                    || object.last_modified_time.is_some() =>
                {
                    s3_error!(NotImplemented)
                }
                (Ok(key), Ok(())) => {
                    keys.push(key);
                    continue;
                }
                (Err(error), _) | (_, Err(error)) => error,
            };
            errors.push(failure(object.key, &refused));
        }
        let outcomes = self.buckets.delete_each(&bucket, keys.clone()).await.map_err(answer)?;
        let mut deleted = Vec::new();
        for (key, outcome) in keys.iter().zip(outcomes) {
            match outcome {
                Ok(()) => deleted
                    .push(dto::DeletedObject { key: Some(key.as_str().to_owned()), ..Default::default() }),
                Err(error) => errors.push(failure(key.as_str().to_owned(), &answer(error))),
            }
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        Ok(S3Response::new(dto::DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            request_charged: None,
        }))
    }
}

fn failure(key: String, error: &s3s::S3Error) -> dto::Error {
    dto::Error {
        key: Some(key),
        code: Some(error.code().as_str().to_owned()),
        message: error.message().map(str::to_owned),
        version_id: None,
    }
}
