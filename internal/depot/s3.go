package depot

import (
	"bytes"
	"context"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

const documentType = "application/yaml"

// s3 returns a client for one exchange.
func (d *Depot) s3(l *gatewaypb.S3Location) (c *minio.Client, release func(), err error) {
	t, release := d.transport(d.o.Dial)
	c, err = minio.New(l.GetEndpoint(), &minio.Options{
		Creds:      credentials.NewStaticV4(l.GetAccessKeyId(), l.GetSecretAccessKey(), ""),
		Secure:     l.GetSsl(),
		Transport:  t,
		MaxRetries: 3,
	})
	if err != nil {
		return nil, nil, refuse(codes.InvalidArgument, "s3 endpoint: not host or host:port")
	}
	return c, release, nil
}

func (d *Depot) writeS3(ctx context.Context, l *gatewaypb.S3Location, document []byte) error {
	c, release, err := d.s3(l)
	if err != nil {
		return err
	}
	defer release()
	_, err = c.PutObject(ctx, l.GetBucket(), l.GetPath(), bytes.NewReader(document), int64(len(document)), minio.PutObjectOptions{
		ContentType: documentType, DisableMultipart: true,
	})
	if err != nil {
		return s3Failure(ctx, err)
	}
	return nil
}

func (d *Depot) readS3(ctx context.Context, l *gatewaypb.S3Location, limit int64) ([]byte, error) {
	c, release, err := d.s3(l)
	if err != nil {
		return nil, err
	}
	defer release()
	o, err := c.GetObject(ctx, l.GetBucket(), l.GetPath(), minio.GetObjectOptions{})
	if err != nil {
		return nil, s3Failure(ctx, err)
	}
	defer o.Close()
	text, err := readAll(o, limit)
	if err != nil {
		return nil, s3Failure(ctx, err)
	}
	return text, nil
}

func s3Failure(ctx context.Context, err error) error {
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchBucket:
		return refuse(codes.NotFound, "s3: there is no such bucket")
	case minio.NoSuchKey:
		return refuse(codes.NotFound, "s3: there is no object at the path")
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return refuse(codes.FailedPrecondition, "s3: the credentials are refused")
	case minio.InvalidArgument, "InvalidBucketName", "XMinioInvalidObjectName":
		return refuse(codes.InvalidArgument, "s3: bucket or path is not valid")
	}
	return failure(ctx, "s3", err)
}
