package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/schema"
)

// The methods of ZITADEL's event API.
const (
	listEvents         = "/zitadel.admin.v1.AdminService/ListEvents"
	listAggregateTypes = "/zitadel.admin.v1.AdminService/ListAggregateTypes"
)

const (
	pageSize     = 1000 // the upstream gives no more
	callTimeout  = 20 * time.Second
	maxPageBytes = 256 << 20
)

// query is a look at the events. Both ends of the time are exclusive.
type query struct {
	since, until               time.Time
	newestFirst                bool
	limit                      int // 0: pageSize
	aggregateType, aggregateID string
	sequence                   uint64 // exclusive
}

// listed is an event of the upstream.
type listed struct {
	event Event
	at    time.Time
}

// key tells it from all others.
func (l *listed) key() string {
	return l.event.AggregateType + "\x00" + l.event.AggregateID + "\x00" + strconv.FormatUint(l.event.Sequence, 10)
}

// eventAPI calls the upstream by its schema.
type eventAPI struct {
	conn   grpc.ClientConnInterface
	schema func() *schema.Schema
	token  func() (string, error)
}

func (a *eventAPI) list(ctx context.Context, q query) ([]listed, error) {
	request := map[string]any{"limit": pageSize, "asc": !q.newestFirst}
	if q.limit > 0 {
		request["limit"] = q.limit
	}
	between := map[string]any{}
	if !q.since.IsZero() {
		between["since"] = q.since.UTC().Format(time.RFC3339Nano)
	}
	if !q.until.IsZero() {
		between["until"] = q.until.UTC().Format(time.RFC3339Nano)
	}
	if len(between) > 0 {
		request["range"] = between
	}
	if q.aggregateType != "" {
		request["aggregateTypes"] = []string{q.aggregateType}
	}
	if q.aggregateID != "" {
		request["aggregateId"] = q.aggregateID
	}
	if q.sequence > 0 {
		request["sequence"] = strconv.FormatUint(q.sequence, 10)
	}
	var response struct {
		Events []struct {
			Editor struct {
				UserID string `json:"userId"`
			} `json:"editor"`
			Aggregate struct {
				ID            string     `json:"id"`
				Type          typeOfWire `json:"type"`
				ResourceOwner string     `json:"resourceOwner"`
			} `json:"aggregate"`
			Sequence     uint64          `json:"sequence,string"`
			CreationDate string          `json:"creationDate"`
			Payload      json.RawMessage `json:"payload"`
			Type         typeOfWire      `json:"type"`
		} `json:"events"`
	}
	if err := a.call(ctx, listEvents, request, &response); err != nil {
		return nil, err
	}
	events := make([]listed, len(response.Events))
	for i, e := range response.Events {
		at, err := time.Parse(time.RFC3339Nano, e.CreationDate)
		if err != nil {
			return nil, errors.New("an event of the upstream has no creation_date")
		}
		events[i] = listed{at: at, event: Event{
			AggregateID: e.Aggregate.ID, AggregateType: e.Aggregate.Type.Type, ResourceOwner: e.Aggregate.ResourceOwner,
			Sequence: e.Sequence, Type: e.Type.Type, CreatedAt: e.CreationDate, UserID: e.Editor.UserID, Payload: e.Payload,
		}}
	}
	return events, nil
}

type typeOfWire struct {
	Type string `json:"type"`
}

// aggregateTypes lists what the upstream knows, nothing if it does not tell.
func (a *eventAPI) aggregateTypes(ctx context.Context) ([]string, error) {
	var response struct {
		Types []typeOfWire `json:"aggregateTypes"`
	}
	err := a.call(ctx, listAggregateTypes, struct{}{}, &response)
	if err != nil && !errors.Is(err, errNoMethod) && status.Code(err) != codes.Unimplemented {
		return nil, err
	}
	var types []string
	for _, t := range response.Types {
		types = append(types, t.Type)
	}
	return types, nil
}

// ready says whether the schema has the API.
func (a *eventAPI) ready() error {
	_, err := a.method(listEvents)
	return err
}

func (a *eventAPI) method(name string) (*schema.Method, error) {
	s := a.schema()
	if s == nil {
		return nil, errNoSchema
	}
	if method := s.Method(name); method != nil {
		return method, nil
	}
	return nil, errNoMethod
}

// call sends JSON and reads JSON, which the schema turns into the messages.
func (a *eventAPI) call(ctx context.Context, name string, request, response any) error {
	method, err := a.method(name)
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	message, err := method.Input().DecodeJSON(body)
	if err != nil {
		return fmt.Errorf("ask for events: %w", err)
	}
	in, err := message.Wire()
	if err != nil {
		return fmt.Errorf("ask for events: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if a.token != nil {
		token, err := a.token()
		if err != nil {
			return fmt.Errorf("%w: %w", errToken, err)
		}
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
	}
	var out []byte
	if err := a.conn.Invoke(ctx, name, &in, &out, grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(maxPageBytes)); err != nil {
		return err
	}
	answer, err := method.Output().Decode(out)
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	text, err := answer.JSON()
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	if json.Unmarshal(text, response) != nil {
		return errors.New("the events of the upstream have another form than expected")
	}
	return nil
}

// rawCodec passes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

// union collects events once each.
type union struct {
	events []listed
	seen   map[string]bool
}

func (u *union) add(events []listed) {
	for _, l := range events {
		if key := l.key(); !u.seen[key] {
			u.seen[key] = true
			u.events = append(u.events, l)
		}
	}
}

// at returns those of one time.
func (u *union) at(t time.Time) []listed {
	return slices.DeleteFunc(u.events, func(l listed) bool { return !l.at.Equal(t) })
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
