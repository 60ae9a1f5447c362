package admin

import (
	"context"
	"encoding/pem"
	"errors"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// Places are where documents are written to and read from. An error that is an *[Error] is told to the caller; so it
// must hold no secret, and nothing that a server somewhere answered.
type Places interface {
	// Write stores a document as a whole, or not at all.
	Write(ctx context.Context, place Place, document []byte) error
	// Read returns a document; limit is how long it may be.
	Read(ctx context.Context, place Place, limit int64) ([]byte, error)
}

// Place is one place: exactly one field is set. It holds secrets of the caller.
type Place struct {
	Local *gatewaypb.LocalOutput
	S3    *gatewaypb.S3Location
	GCS   *gatewaypb.GCSLocation
}

// maxImportBytes bounds what is read from a place.
const maxImportBytes = 64 << 20

var errNoPlaces = &Error{codes.Unimplemented, "", "this gateway exchanges documents in the call only"}

func gatewayExport(r *gatewaypb.ExportRequest) error {
	given := 0
	for _, is := range []bool{r.GetResponseOutput(), r.GetLocalOutput() != nil, r.GetS3Output() != nil, r.GetGcsOutput() != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return invalid("output: at most one of response_output, local_output, s3_output and gcs_output must be given")
	}
	if _, err := exchangeTime(r.GetTimeout()); err != nil {
		return err
	}
	return checkPlace(Place{r.GetLocalOutput(), r.GetS3Output(), r.GetGcsOutput()})
}

func gatewayImport(r *gatewaypb.ImportRequest) error {
	given := 0
	for _, is := range []bool{r.GetDocument() != "", r.GetLocalInput() != nil, r.GetS3Input() != nil, r.GetGcsInput() != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return invalid("input: exactly one of document, local_input, s3_input and gcs_input must be given")
	}
	if _, err := exchangeTime(r.GetTimeout()); err != nil {
		return err
	}
	if err := checkDocument(r.GetDocument()); err != nil {
		return err
	}
	return checkPlace(Place{r.GetLocalInput(), r.GetS3Input(), r.GetGcsInput()})
}

const (
	maxPathRunes = 1024
	maxKeyRunes  = 1 << 16
)

// checkPlace wants everything that a place needs.
func checkPlace(p Place) error {
	type field struct {
		name, value string
		limit       int
	}
	var all []field
	switch {
	case p.Local != nil:
		all = []field{{"path", p.Local.GetPath(), maxPathRunes}}
	case p.S3 != nil:
		all = []field{
			{"path", p.S3.GetPath(), maxPathRunes},
			{"endpoint", p.S3.GetEndpoint(), maxURLRunes},
			{"bucket", p.S3.GetBucket(), maxIDRunes},
			{"access_key_id", p.S3.GetAccessKeyId(), maxURLRunes},
			{"secret_access_key", p.S3.GetSecretAccessKey(), maxURLRunes},
		}
	case p.GCS != nil:
		all = []field{{"bucket", p.GCS.GetBucket(), maxIDRunes + 22}, {"path", p.GCS.GetPath(), maxPathRunes}}
		if utf8.RuneCountInString(p.GCS.GetServiceaccountJson()) > maxKeyRunes {
			return invalid("serviceaccount_json: value length must be at most %d characters", maxKeyRunes)
		}
	}
	for _, f := range all {
		if err := checkRunes(f.name, f.value, f.limit); err != nil {
			return err
		}
	}
	return nil
}

func (p Place) none() bool { return p == Place{} }

// Export writes the configuration to the answer or to a place. Secrets, and every place but the answer, need the
// permission to write.
func (g *gateway) Export(ctx context.Context, r *gatewaypb.ExportRequest) (*gatewaypb.ExportResponse, error) {
	place := Place{r.GetLocalOutput(), r.GetS3Output(), r.GetGcsOutput()}
	caller, _ := ctx.Value(callerKey{}).(Caller)
	if (r.GetWithSigningKeys() || !place.none()) && !caller.Can(permGatewayWrite) {
		return nil, errNoPermission
	}
	if !place.none() && g.o.Places == nil {
		return nil, errNoPlaces
	}
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := exported(s, g.instance, r.GetWithSigningKeys())
	if err != nil {
		return nil, err
	}
	res := &gatewaypb.ExportResponse{
		Targets: uint32(len(doc.Targets)), Executions: uint32(len(doc.Executions)), Revision: s.Revision(),
	}
	text := configfile.Print(doc)
	if place.none() {
		res.Document = string(text)
		return res, nil
	}
	limit, err := exchangeTime(r.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := g.o.Places.Write(ctx, place, text); err != nil {
		return nil, err
	}
	return res, nil
}

// Import reads what Export wrote.
func (g *gateway) Import(ctx context.Context, r *gatewaypb.ImportRequest) (*gatewaypb.ImportResponse, error) {
	text, err := g.imported(ctx, r)
	if err != nil {
		return nil, err
	}
	w := want(text, configfile.ParseOptions{})
	w.action, w.dryRun = "Import", r.GetDryRun()
	if len(w.faults) > 0 {
		return nil, faultError(w.faults)
	}
	d, err := g.core.bring(ctx, w)
	if err != nil {
		return nil, err
	}
	res := &gatewaypb.ImportResponse{Revision: d.revision, Applied: !w.dryRun && len(d.plan.faults) == 0}
	told := 0
	for _, v := range d.plan.verdicts {
		item := &gatewaypb.ImportItem{Kind: string(v.kind), Name: v.name, Result: "unchanged"}
		switch {
		case len(v.faults) > 0:
			item.Result, item.Error = "failed", v.faults.Error()
		case v.result == gatewaypb.ChangeKind_CHANGE_KIND_CREATE:
			item.Result = "created"
		case v.result == gatewaypb.ChangeKind_CHANGE_KIND_UPDATE:
			item.Result = "updated"
		}
		told += len(v.faults)
		res.Items = append(res.Items, item)
	}
	if told < len(d.plan.faults) { // of the document as a whole
		return nil, faultError(d.plan.faults)
	}
	return res, nil
}

// imported returns the document of an import.
func (g *gateway) imported(ctx context.Context, r *gatewaypb.ImportRequest) ([]byte, error) {
	place := Place{r.GetLocalInput(), r.GetS3Input(), r.GetGcsInput()}
	if place.none() {
		return []byte(r.GetDocument()), nil
	}
	if g.o.Places == nil {
		return nil, errNoPlaces
	}
	limit, err := exchangeTime(r.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return g.o.Places.Read(ctx, place, maxImportBytes)
}

// exported is the document of a state. Without secrets there are no signing keys, and the values of headers read "***".
func exported(s *store.State, instance string, secrets bool) (*configfile.Document, error) {
	doc := &configfile.Document{Export: &configfile.Export{
		Format: configfile.Format, Instance: instance, Revision: s.Revision(), Changed: s.Time(), SigningKeys: secrets,
	}}
	for _, t := range s.Targets() {
		out, err := exportedTarget(s, t, secrets)
		if err != nil {
			return nil, err
		}
		doc.Targets = append(doc.Targets, out)
	}
	var faults []error
	for _, e := range s.Executions() {
		out, err := exportedExecution(s, e)
		faults = append(faults, err)
		doc.Executions = append(doc.Executions, out)
	}
	return doc, errors.Join(faults...)
}

func exportedTarget(s *store.State, t *store.Target, secrets bool) (*configfile.Target, error) {
	out := &configfile.Target{
		Name: t.Name, Type: configfile.Type(t.Type), URL: t.Endpoint, Timeout: t.Timeout,
		Async: t.Async, InterruptOnError: t.InterruptOnError, PayloadType: t.PayloadType,
	}
	if secrets {
		out.SigningKey = t.SigningKey
	}
	for _, k := range t.PublicKeys {
		text := string(k.PEM)
		if block, _ := pem.Decode(k.PEM); block != nil && !utf8.ValidString(text) {
			text = string(pem.EncodeToMemory(block))
		}
		out.PublicKeys = append(out.PublicKeys, configfile.PublicKey{ID: k.ID, PEM: text, Active: k.Active, Expires: k.ExpiresAt})
	}
	p, err := targetPolicy(s, t.ID)
	if err != nil || p == nil || p.Empty() {
		return out, err
	}
	out.Policy = targetPolicyOut(p)
	if secrets {
		out.Policy.Headers, out.Policy.SigningSecrets = headersOut(p), p.SigningSecrets
	}
	return out, nil
}

func headersOut(p *policy.Target) *gatewaypb.HeaderMap {
	if len(p.Headers) == 0 {
		return nil
	}
	return &gatewaypb.HeaderMap{Values: p.Headers}
}

func exportedExecution(s *store.State, e *store.Execution) (*configfile.Execution, error) {
	cond, err := conditions.Parse(e.ID)
	if err != nil {
		return nil, err
	}
	out := &configfile.Execution{Condition: cond}
	for _, id := range e.Targets {
		if t := s.Target(id); t != nil {
			out.Targets = append(out.Targets, t.Name)
		}
	}
	for _, id := range e.Includes {
		c, err := conditions.Parse(id)
		if err != nil {
			return nil, err
		}
		out.Includes = append(out.Includes, c)
	}
	p, err := executionPolicy(s, e.ID)
	if err == nil && p != nil && !p.Empty() {
		out.Policy = executionPolicyOut(p)
	}
	return out, err
}
