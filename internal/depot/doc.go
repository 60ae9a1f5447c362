// Package depot writes a document to a place outside and reads it back: a file below one directory, an S3 bucket, a GCS
// bucket. [Depot] is what admin.Places wants.
//
// The places are named by callers of the admin API, so they are not trusted: a path cannot leave the directory, and a
// connection is made only where Options.Dial lets it, redirects and the token server of a service account included. The
// gateway's own credentials, of the machine or of its cloud, are never used. What a server answers is judged and not
// repeated, so that no caller can read through the gateway what it could not reach itself.
package depot
