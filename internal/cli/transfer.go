package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

// outside is a place that the gateway itself writes to or reads from.
type outside struct {
	p *program

	localPath string

	s3         gatewaypb.S3Location
	s3Secret   string // file
	gcs        gatewaypb.GCSLocation
	gcsAccount string // file
	timeout    time.Duration
}

const outsideHelp = `S3 keys come from --s3-access-key-id and --s3-secret-access-key-file, or from
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the GCS key file from
--gcs-serviceaccount-json, or from GOOGLE_APPLICATION_CREDENTIALS.`

func (l *outside) flags(cmd *cobra.Command, verb string) {
	f := cmd.Flags()
	f.StringVar(&l.localPath, "local-path", "", verb+" `PATH` on the gateway's machine (local_output.path)")
	f.StringVar(&l.s3.Bucket, "s3-bucket", "", "`BUCKET` of an S3 service (s3_output.bucket)")
	f.StringVar(&l.s3.Path, "s3-path", "", "`NAME` of the object (s3_output.path)")
	f.StringVar(&l.s3.Endpoint, "s3-endpoint", "", "`HOST:PORT` of the service (s3_output.endpoint)")
	f.StringVar(&l.s3.AccessKeyId, "s3-access-key-id", "", "`ID` of the key (s3_output.access_key_id)")
	f.StringVar(&l.s3Secret, "s3-secret-access-key-file", "", "`FILE` with the key (s3_output.secret_access_key)")
	f.BoolVar(&l.s3.Ssl, "s3-ssl", true, "TLS to the service (s3_output.ssl)")
	f.StringVar(&l.gcs.Bucket, "gcs-bucket", "", "`BUCKET` of Google Cloud Storage (gcs_output.bucket)")
	f.StringVar(&l.gcs.Path, "gcs-path", "", "`NAME` of the object (gcs_output.path)")
	f.StringVar(&l.gcsAccount, "gcs-serviceaccount-json", "", "key `FILE` of a service account (gcs_output.serviceaccount_json)")
	f.DurationVar(&l.timeout, "timeout", 30*time.Second, "give the gateway this `TIME` to "+verb+" it")
	for _, flag := range []string{"local-path", "s3-path", "gcs-path", "s3-bucket", "gcs-bucket", "s3-endpoint", "s3-access-key-id"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

// check says what is wrong with the flags, other being one more place that was
// named.
func (l *outside) check(given func(string) bool, other string) error {
	var places []string
	if other != "" {
		places = append(places, other)
	}
	for _, p := range []struct {
		flag string
		on   bool
	}{{"--local-path", l.localPath != ""}, {"--s3-bucket", l.s3.GetBucket() != ""}, {"--gcs-bucket", l.gcs.GetBucket() != ""}} {
		if p.on {
			places = append(places, p.flag)
		}
	}
	if len(places) > 1 {
		return usage("%s: one place at a time", strings.Join(places, ", "))
	}
	for _, flag := range []string{"s3-path", "s3-endpoint", "s3-access-key-id", "s3-secret-access-key-file", "s3-ssl"} {
		if given(flag) && l.s3.GetBucket() == "" {
			return usage("--%s has no meaning without --s3-bucket", flag)
		}
	}
	for _, flag := range []string{"gcs-path", "gcs-serviceaccount-json"} {
		if given(flag) && l.gcs.GetBucket() == "" {
			return usage("--%s has no meaning without --gcs-bucket", flag)
		}
	}
	switch {
	case l.s3.GetBucket() != "" && l.s3.GetPath() == "":
		return usage("--s3-path NAME is missing")
	case l.s3.GetBucket() != "" && l.s3.GetEndpoint() == "":
		return usage("--s3-endpoint HOST:PORT is missing")
	case l.gcs.GetBucket() != "" && l.gcs.GetPath() == "":
		return usage("--gcs-path NAME is missing")
	case l.timeout <= 0:
		return usage("--timeout %v: more than 0s is possible", l.timeout)
	}
	return nil
}

// locations returns the one place that was named, with its secrets.
func (l *outside) locations() (*gatewaypb.LocalOutput, *gatewaypb.S3Location, *gatewaypb.GCSLocation, error) {
	env := (&connection{environ: l.p.environ}).env
	switch {
	case l.localPath != "":
		return &gatewaypb.LocalOutput{Path: l.localPath}, nil, nil, nil
	case l.s3.GetBucket() != "":
		if l.s3.GetAccessKeyId() == "" {
			l.s3.AccessKeyId = env("AWS_ACCESS_KEY_ID")
		}
		l.s3.SecretAccessKey = env("AWS_SECRET_ACCESS_KEY")
		if l.s3Secret != "" {
			secret, err := readSecret(l.s3Secret)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("read the S3 key: %w", err)
			}
			l.s3.SecretAccessKey = secret
		}
		if l.s3.GetAccessKeyId() == "" || l.s3.GetSecretAccessKey() == "" {
			return nil, nil, nil, usage("the S3 key is missing: give --s3-access-key-id and --s3-secret-access-key-file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		return nil, &l.s3, nil, nil
	case l.gcs.GetBucket() != "":
		file := l.gcsAccount
		if file == "" {
			file = env("GOOGLE_APPLICATION_CREDENTIALS")
		}
		if file != "" {
			account, err := readSecret(file)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("read the service account: %w", err)
			}
			l.gcs.ServiceaccountJson = account
		}
		return nil, nil, &l.gcs, nil
	}
	return nil, nil, nil, nil
}

// patient gives calls as long as the gateway may take, and a little more.
func (s *session) patient(timeout time.Duration) {
	if !s.given("request-timeout") {
		s.timeout = timeout + 5*time.Second
	}
}

func (p *program) newExport() *cobra.Command {
	var o format
	var file string
	var withKeys bool
	place := &outside{p: p}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write targets and executions to a file, a bucket or standard output",
		Long: `Writes targets, executions and their policies by name, in the form that apply
and import read. Without a place it goes to standard output; -o then chooses
json (the answer of the API, with the document in it) or yaml.
` + outsideHelp,
		Example: `  execgate export > gateway.yaml
  execgate export --file gateway.yaml --with-signing-keys
  execgate export --s3-endpoint s3.example:443 --s3-bucket backup --s3-path execgate.yaml
  execgate export --gcs-bucket backup --gcs-path execgate.yaml`,
		Args: cobra.NoArgs,
	}
	place.flags(cmd, "write")
	cmd.Flags().StringVar(&file, "file", "", "write `FILE` on this machine, for its owner only")
	cmd.Flags().BoolVar(&withKeys, "with-signing-keys", false, "write the signing keys too: secrets")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		other := ""
		if file != "" {
			other = "--file"
		}
		if err := place.check(s.given, other); err != nil {
			return err
		}
		req := &gatewaypb.ExportRequest{WithSigningKeys: withKeys, Timeout: place.timeout.String()}
		var err error
		if req.LocalOutput, req.S3Output, req.GcsOutput, err = place.locations(); err != nil {
			return err
		}
		req.ResponseOutput = req.GetLocalOutput() == nil && req.GetS3Output() == nil && req.GetGcsOutput() == nil
		s.patient(place.timeout)
		res, err := s.gateway.Export(ctx, req)
		if err != nil {
			return err
		}
		summary := func(w io.Writer, to string) {
			_, _ = fmt.Fprintf(w, "%d targets and %d executions of revision %d written to %s\n", res.GetTargets(), res.GetExecutions(), res.GetRevision(), to)
		}
		switch {
		case file != "":
			if err := writeFile(file, res.GetDocument()); err != nil {
				return err
			}
			res.Document = ""
			return s.show(res, func(w io.Writer) { summary(w, file) })
		case !req.GetResponseOutput():
			return s.show(res, func(w io.Writer) { summary(w, place.String()) })
		case s.format == asJSON:
			return s.show(res, nil)
		default:
			_, err := io.WriteString(s.out(), res.GetDocument())
			return err
		}
	}, noWords)
}

// String names the place, without its secrets.
func (l *outside) String() string {
	switch {
	case l.s3.GetBucket() != "":
		return "s3://" + l.s3.GetBucket() + "/" + l.s3.GetPath()
	case l.gcs.GetBucket() != "":
		return "gs://" + l.gcs.GetBucket() + "/" + l.gcs.GetPath()
	default:
		return l.localPath + " on the gateway's machine"
	}
}

// writeFile replaces a file as a whole: a full disk leaves the old one.
func writeFile(name, text string) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(text)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (p *program) newImport() *cobra.Command {
	var o format
	var dry bool
	place := &outside{p: p}
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Read what export wrote, all or nothing",
		Long: `Creates and updates targets and executions, and deletes none. Every item is
reported; when one fails nothing is written.
` + documentHelp + "\n" + outsideHelp,
		Example: `  execgate import gateway.yaml --dry-run
  execgate export --admin-url http://old:8081 --with-signing-keys | execgate import -
  execgate import --s3-endpoint s3.example:443 --s3-bucket backup --s3-path execgate.yaml`,
		Args: cobra.MaximumNArgs(1),
	}
	place.flags(cmd, "read")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only report what would happen")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		other := ""
		if len(args) == 1 {
			other = "FILE"
		}
		if err := place.check(s.given, other); err != nil {
			return err
		}
		req := &gatewaypb.ImportRequest{Timeout: place.timeout.String(), DryRun: dry}
		var err error
		if req.LocalInput, req.S3Input, req.GcsInput, err = place.locations(); err != nil {
			return err
		}
		if req.GetLocalInput() == nil && req.GetS3Input() == nil && req.GetGcsInput() == nil {
			if other == "" {
				return usage("say what to read: FILE (- is standard input), --local-path, --s3-bucket or --gcs-bucket")
			}
			if req.Document, err = s.document(args[0]); err != nil {
				return err
			}
			other = args[0]
		} else {
			other = place.String()
		}
		s.patient(place.timeout)
		res, err := s.gateway.Import(ctx, req)
		if err != nil {
			return aboutFile(other, err)
		}
		return s.showImport(res, dry)
	})
}

func (s *session) showImport(res *gatewaypb.ImportResponse, dry bool) error {
	failed, changed := 0, 0
	for _, item := range res.GetItems() {
		switch item.GetResult() {
		case "failed":
			failed++
		case "created", "updated":
			changed++
		}
	}
	err := s.show(res, func(w io.Writer) {
		g := &grid{head: []string{"RESULT", "KIND", "NAME", "ERROR"}}
		if failed == 0 {
			g.head = g.head[:3]
		}
		for _, item := range res.GetItems() {
			cells := []string{item.GetResult(), item.GetKind(), item.GetName(), item.GetError()}
			g.row(cells[:len(g.head)]...)
		}
		g.write(w, "nothing to import")
		switch {
		case failed > 0:
		case dry:
			_, _ = fmt.Fprintf(w, "nothing was written: a dry run on revision %d\n", res.GetRevision())
		case changed == 0:
			_, _ = fmt.Fprintf(w, "nothing to change, revision %d has it all\n", res.GetRevision())
		default:
			_, _ = fmt.Fprintf(w, "imported as revision %d\n", res.GetRevision())
		}
	})
	if err == nil && failed > 0 {
		return &Failure{fmt.Errorf("nothing was imported: %d of %d items failed", failed, len(res.GetItems())), ""}
	}
	return err
}
