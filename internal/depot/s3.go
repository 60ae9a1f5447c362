package depot

import (
	"bytes"
	"context"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

const documentType = "application/yaml"

// s3 returns a client for one exchange.
func (d *Depot) s3(l *gatewaypb.S3Location) (c *minio.Client, x *exchange, err error) {
	if s3utils.CheckValidBucketName(l.GetBucket()) != nil || s3utils.CheckValidObjectName(l.GetPath()) != nil {
		return nil, nil, refuse(codes.InvalidArgument, "s3: bucket or path is not valid")
	}
	x = d.exchange("s3", d.o.Dial)
	c, err = minio.New(l.GetEndpoint(), &minio.Options{
		Creds:      credentials.NewStaticV4(l.GetAccessKeyId(), l.GetSecretAccessKey(), ""),
		Secure:     l.GetSsl(),
		Transport:  x,
		MaxRetries: 3,
	})
	if err != nil {
		return nil, nil, refuse(codes.InvalidArgument, "s3 endpoint: not host or host:port")
	}
	return c, x, nil
}

func (d *Depot) writeS3(ctx context.Context, l *gatewaypb.S3Location, document []byte) error {
	c, x, err := d.s3(l)
	if err != nil {
		return err
	}
	defer x.CloseIdleConnections()
	_, err = c.PutObject(ctx, l.GetBucket(), l.GetPath(), bytes.NewReader(document), int64(len(document)), minio.PutObjectOptions{
		ContentType: documentType, DisableMultipart: true,
	})
	if err != nil {
		return x.s3Failure(ctx, err)
	}
	return nil
}

func (d *Depot) readS3(ctx context.Context, l *gatewaypb.S3Location, limit int64) ([]byte, error) {
	c, x, err := d.s3(l)
	if err != nil {
		return nil, err
	}
	defer x.CloseIdleConnections()
	o, err := c.GetObject(ctx, l.GetBucket(), l.GetPath(), minio.GetObjectOptions{})
	if err != nil {
		return nil, x.s3Failure(ctx, err)
	}
	defer func() { _ = o.Close() }()
	text, err := readAll(o, limit)
	if err != nil {
		return nil, x.s3Failure(ctx, err)
	}
	return text, nil
}

func (x *exchange) s3Failure(ctx context.Context, err error) error {
	answer := minio.ToErrorResponse(err)
	switch answer.Code {
	case minio.NoSuchBucket:
		return refuse(codes.NotFound, "s3: there is no such bucket")
	case minio.NoSuchKey:
		return refuse(codes.NotFound, "s3: there is no object at the path")
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound":
		return refuse(codes.FailedPrecondition, "s3: the credentials are refused")
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		return refuse(codes.FailedPrecondition, "s3: the credentials are refused")
	case answer.StatusCode >= 400 && answer.StatusCode <= 499:
		return refuse(codes.FailedPrecondition, "s3: the request is refused with status %d", answer.StatusCode)
	}
	return x.failure(ctx, err)
}
