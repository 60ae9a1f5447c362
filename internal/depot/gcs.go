package depot

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
	"google.golang.org/grpc/codes"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

// gcs returns a client for one exchange.
func (d *Depot) gcs(ctx context.Context, l *gatewaypb.GCSLocation) (s *storage.Service, x *exchange, err error) {
	dial := d.o.Dial
	if d.o.GCSEmulator != "" {
		dial = new(net.Dialer).DialContext
	}
	x = d.exchange("gcs", dial)
	client := &http.Client{Transport: x, CheckRedirect: keepTLS}
	options := []option.ClientOption{option.WithHTTPClient(client)}
	if d.o.GCSEmulator != "" {
		options = append(options, option.WithEndpoint(emulatorURL(d.o.GCSEmulator)))
	} else {
		account, err := serviceAccount(l.GetServiceaccountJson())
		if err != nil {
			return nil, nil, err
		}
		client = account.Client(context.WithValue(ctx, oauth2.HTTPClient, client))
		client.CheckRedirect = keepTLS
		options[0] = option.WithHTTPClient(client)
	}
	if s, err = storage.NewService(ctx, options...); err != nil {
		return nil, nil, refuse(codes.InvalidArgument, "gcs: not possible with these settings")
	}
	return s, x, nil
}

// emulatorURL is the base of the API; as in Google's own libraries the scheme may be missing.
func emulatorURL(address string) string {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	return strings.TrimSuffix(address, "/") + "/storage/v1/"
}

func keepTLS(r *http.Request, via []*http.Request) error {
	if len(via) > 0 && via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return errInsecureRedirect
	}
	if len(via) > 4 {
		return errors.New("too many redirects")
	}
	return nil
}

// serviceAccount reads a key file. Other kinds of credentials are refused: they can name files, commands and addresses of
// the gateway's machine.
func serviceAccount(text string) (*jwt.Config, error) {
	var key struct {
		Type         string `json:"type"`
		ClientEmail  string `json:"client_email"`
		PrivateKeyID string `json:"private_key_id"`
		PrivateKey   string `json:"private_key"`
		TokenURI     string `json:"token_uri"`
	}
	if json.Unmarshal([]byte(text), &key) != nil {
		return nil, refuse(codes.InvalidArgument, "serviceaccount_json: not JSON of a service account's key")
	}
	if key.Type != "service_account" || key.ClientEmail == "" {
		return nil, refuse(codes.InvalidArgument, "serviceaccount_json: not the key of a service account")
	}
	if block, _ := pem.Decode([]byte(key.PrivateKey)); block == nil {
		return nil, refuse(codes.InvalidArgument, "serviceaccount_json: private_key is not PEM")
	}
	if key.TokenURI == "" {
		key.TokenURI = "https://oauth2.googleapis.com/token"
	}
	if u, err := url.Parse(key.TokenURI); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, refuse(codes.InvalidArgument, "serviceaccount_json: token_uri is not an https URL")
	}
	return &jwt.Config{
		Email: key.ClientEmail, PrivateKey: []byte(key.PrivateKey), PrivateKeyID: key.PrivateKeyID,
		Scopes: []string{storage.DevstorageReadWriteScope}, TokenURL: key.TokenURI,
	}, nil
}

func (d *Depot) writeGCS(ctx context.Context, l *gatewaypb.GCSLocation, document []byte) error {
	s, x, err := d.gcs(ctx, l)
	if err != nil {
		return err
	}
	defer x.CloseIdleConnections()
	_, err = s.Objects.Insert(l.GetBucket(), &storage.Object{Name: l.GetPath(), ContentType: documentType}).
		Media(bytes.NewReader(document), googleapi.ContentType(documentType), googleapi.ChunkSize(0)).Context(ctx).Do()
	if err != nil {
		return x.gcsFailure(ctx, err)
	}
	return nil
}

func (d *Depot) readGCS(ctx context.Context, l *gatewaypb.GCSLocation, limit int64) ([]byte, error) {
	s, x, err := d.gcs(ctx, l)
	if err != nil {
		return nil, err
	}
	defer x.CloseIdleConnections()
	res, err := s.Objects.Get(l.GetBucket(), l.GetPath()).Context(ctx).Download()
	if err != nil {
		return nil, x.gcsFailure(ctx, err)
	}
	defer res.Body.Close()
	text, err := readAll(res.Body, limit)
	if err != nil {
		return nil, x.gcsFailure(ctx, err)
	}
	return text, nil
}

func (x *exchange) gcsFailure(ctx context.Context, err error) error {
	var answer *googleapi.Error
	var token *oauth2.RetrieveError
	if errors.As(err, &token) {
		return refuse(codes.FailedPrecondition, "gcs: the token server refuses the service account")
	}
	if errors.As(err, &answer) {
		switch answer.Code {
		case http.StatusNotFound:
			return refuse(codes.NotFound, "gcs: there is no such bucket, or no object at the path")
		case http.StatusUnauthorized, http.StatusForbidden:
			return refuse(codes.FailedPrecondition, "gcs: the credentials are refused")
		case http.StatusBadRequest:
			return refuse(codes.InvalidArgument, "gcs: bucket or path is not valid")
		}
	}
	return x.failure(ctx, err)
}
