package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/store"
)

// Errors of deliveries.
var (
	errNoDeliveries    = &Error{codes.Unimplemented, "", "this gateway keeps its deliveries in memory: there is nothing to list, see queue.driver"}
	errNoSuchDelivery  = &Error{codes.NotFound, "", "there is no delivery with this id"}
	errNotDead         = &Error{codes.FailedPrecondition, "", "the delivery is not a dead letter"}
	errQueueAway       = &Error{codes.Unavailable, "", "the queue cannot be reached, try again later"}
	errBadCursor       = invalid("cursor: it is not one that a list has returned")
	maxDeliveries      = uint32(1000)
	maxDeliveryIDRunes = 200
)

func init() {
	for method, r := range map[string]rule{
		gatewaypb.GatewayService_ListDeliveries_FullMethodName: {permGatewayRead, fields(gatewayListDeliveries), false},
		gatewaypb.GatewayService_GetDelivery_FullMethodName: {permGatewayRead, fields(func(r *gatewaypb.GetDeliveryRequest) error {
			return checkDeliveryID(r.GetId())
		}), false},
		gatewaypb.GatewayService_ReplayDelivery_FullMethodName: {permGatewayWrite, fields(func(r *gatewaypb.ReplayDeliveryRequest) error {
			return checkDeliveryID(r.GetId())
		}), false},
		gatewaypb.GatewayService_ReplayDeliveries_FullMethodName: {permGatewayWrite, fields(gatewayReplayDeliveries), false},
		gatewaypb.GatewayService_DropDelivery_FullMethodName: {permGatewayWrite, fields(func(r *gatewaypb.DropDeliveryRequest) error {
			return checkDeliveryID(r.GetId())
		}), false},
		gatewaypb.GatewayService_DropDeliveries_FullMethodName: {permGatewayWrite, fields(gatewayDropDeliveries), false},
	} {
		rules[method] = r
	}
}

func checkDeliveryID(id string) error { return checkRunes("id", id, maxDeliveryIDRunes) }

// checkDeliveryTarget checks an id or a name that may be left out.
func checkDeliveryTarget(ref string) error {
	if ref == "" {
		return nil
	}
	return checkTargetRef(ref)
}

func gatewayListDeliveries(r *gatewaypb.ListDeliveriesRequest) error {
	if err := checkDeliveryState(r.GetState()); err != nil {
		return err
	}
	if r.GetLimit() > maxDeliveries {
		return invalid("limit: value must be at most %d", maxDeliveries)
	}
	if r.GetCursor() != "" && !queue.ValidID(r.GetCursor()) {
		return errBadCursor
	}
	return checkDeliveryTarget(r.GetTarget())
}

func gatewayReplayDeliveries(r *gatewaypb.ReplayDeliveriesRequest) error {
	if r.GetState() != "" && r.GetState() != queue.StateDead.String() {
		return invalid("state: only dead deliveries are replayed")
	}
	return checkDeliveryTarget(r.GetTarget())
}

func gatewayDropDeliveries(r *gatewaypb.DropDeliveriesRequest) error {
	if r.GetState() == "" && r.GetTarget() == "" {
		return invalid("state: a state or a target is required")
	}
	if err := checkDeliveryState(r.GetState()); err != nil {
		return err
	}
	return checkDeliveryTarget(r.GetTarget())
}

// checkDeliveryState checks a state that may be left out.
func checkDeliveryState(state string) error {
	if _, err := queue.ParseState(state); state != "" && err != nil {
		return invalid("state: value must be pending, parked, delivered or dead")
	}
	return nil
}

// ListDeliveries returns a page of them.
func (g *gateway) ListDeliveries(ctx context.Context, r *gatewaypb.ListDeliveriesRequest) (*gatewaypb.ListDeliveriesResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	s := g.lastKnown(ctx)
	f := deliveryFilter(s, r.GetState(), r.GetTarget())
	f.Limit, f.Cursor = int(r.GetLimit()), r.GetCursor()
	page, err := g.o.Deliveries.List(ctx, f)
	if err != nil {
		return nil, deliveryError(err)
	}
	res := &gatewaypb.ListDeliveriesResponse{NextCursor: page.Next}
	for _, record := range page.Records {
		res.Deliveries = append(res.Deliveries, deliveryOut(s, record))
	}
	return res, nil
}

// GetDelivery returns one, with its payload.
func (g *gateway) GetDelivery(ctx context.Context, r *gatewaypb.GetDeliveryRequest) (*gatewaypb.GetDeliveryResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	record, err := g.o.Deliveries.Get(ctx, r.GetId())
	sealed := errors.Is(err, queue.ErrSealed) && record != nil
	if err != nil && !sealed {
		return nil, deliveryError(err)
	}
	out := deliveryOut(g.lastKnown(ctx), record)
	out.Payload, out.PayloadSealed = strings.ToValidUTF8(string(record.Body), "\uFFFD"), sealed
	return &gatewaypb.GetDeliveryResponse{Delivery: out}, nil
}

// ReplayDelivery makes a dead letter pending.
func (g *gateway) ReplayDelivery(ctx context.Context, r *gatewaypb.ReplayDeliveryRequest) (*gatewaypb.ReplayDeliveryResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	if err := g.o.Deliveries.Replay(ctx, r.GetId()); err != nil {
		return nil, deliveryError(err)
	}
	g.noteDelivery(ctx, "ReplayDelivery", r.GetId())
	return &gatewaypb.ReplayDeliveryResponse{}, nil
}

// ReplayDeliveries makes all dead letters pending, or those of a target.
func (g *gateway) ReplayDeliveries(ctx context.Context, r *gatewaypb.ReplayDeliveriesRequest) (*gatewaypb.ReplayDeliveriesResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	n, err := g.deliveriesDo(ctx, "ReplayDeliveries", queue.StateDead.String(), r.GetTarget(), queue.ReplayAll)
	if err != nil {
		return nil, err
	}
	return &gatewaypb.ReplayDeliveriesResponse{Replayed: n}, nil
}

// DropDelivery forgets one.
func (g *gateway) DropDelivery(ctx context.Context, r *gatewaypb.DropDeliveryRequest) (*gatewaypb.DropDeliveryResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	if err := g.o.Deliveries.Drop(ctx, r.GetId()); err != nil {
		return nil, deliveryError(err)
	}
	g.noteDelivery(ctx, "DropDelivery", r.GetId())
	return &gatewaypb.DropDeliveryResponse{}, nil
}

// DropDeliveries forgets all of a state, of a target, or of both.
func (g *gateway) DropDeliveries(ctx context.Context, r *gatewaypb.DropDeliveriesRequest) (*gatewaypb.DropDeliveriesResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	n, err := g.deliveriesDo(ctx, "DropDeliveries", r.GetState(), r.GetTarget(), queue.DropAll)
	if err != nil {
		return nil, err
	}
	return &gatewaypb.DropDeliveriesResponse{Dropped: n}, nil
}

// deliveriesDo does something to all that a filter selects, and notes it, also when it got only so far.
func (g *gateway) deliveriesDo(
	ctx context.Context, action, state, target string, do func(context.Context, queue.Desk, queue.Filter) (int, error),
) (uint32, error) {
	f := deliveryFilter(g.lastKnown(ctx), state, target)
	n, err := do(ctx, g.o.Deliveries, f)
	if n > 0 {
		g.noteDeliveries(ctx, action, cmp.Or(f.Target, state), deliveriesDone{State: state, Target: target, Count: n})
	}
	if err != nil {
		return 0, deliveryError(err)
	}
	return uint32(max(n, 0)), nil
}

// deliveriesDone is what the log of changes says of something that was done to deliveries.
type deliveriesDone struct {
	Delivery  string    `json:"delivery,omitempty"`
	State     string    `json:"state,omitempty"`
	Target    string    `json:"target,omitempty"`
	Count     int       `json:"count"`
	ChangedAt time.Time `json:"changed_at"`
}

func (g *gateway) noteDelivery(ctx context.Context, action, id string) {
	g.noteDeliveries(ctx, action, id, deliveriesDone{Delivery: id, Count: 1})
}

// noteDeliveries writes into the log of changes what was done. It is done by then, so that all that can be done about a
// store that is away is to tell the log of this gateway.
func (g *gateway) noteDeliveries(ctx context.Context, action, id string, what deliveriesDone) {
	actor := callerName(ctx)
	_, err := g.core.store.Update(context.WithoutCancel(ctx), actor, action, func(s *store.State) ([]store.Item, error) {
		what.ChangedAt = g.core.now().UTC()
		value, err := json.Marshal(what)
		items := []store.Item{{Kind: store.KindDeliveries, ID: id, Value: value}}
		for before := range s.Items(store.KindDeliveries) {
			if before != id {
				items = append(items, store.Absent(store.KindDeliveries, before))
			}
		}
		return items, err
	})
	if err != nil {
		g.core.logger.Error("the audit log does not tell what was done to deliveries", "actor", actor, "action", action,
			"delivery", what.Delivery, "state", what.State, "target", what.Target, "count", what.Count, "error", err)
	}
}

// lastKnown returns the newest state that can be had, nil if there is none: deliveries are listed without the names of
// their targets then.
func (g *gateway) lastKnown(ctx context.Context) *store.State {
	s, err := g.core.read(ctx)
	if err != nil {
		return nil
	}
	return s
}

// deliveryFilter selects deliveries by what a request names, which is checked.
func deliveryFilter(s *store.State, state, target string) queue.Filter {
	f := queue.Filter{Target: deliveryTarget(s, target)}
	f.State, _ = queue.ParseState(state) // 0 when it is left out
	return f
}

// deliveryTarget returns the id of a target that a caller names. A name that nobody knows is taken for the id of a
// target that is deleted.
func deliveryTarget(s *store.State, ref string) string {
	if s != nil && ref != "" {
		if t := findTarget(s, ref); t != nil {
			return t.ID
		}
	}
	return ref
}

func deliveryError(err error) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return errNoSuchDelivery
	case errors.Is(err, queue.ErrNotDead):
		return errNotDead
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, queue.ErrStopped):
		return errQueueAway
	default:
		return err
	}
}

func deliveryOut(s *store.State, r *queue.Record) *gatewaypb.Delivery {
	out := &gatewaypb.Delivery{
		Id: r.ID, Target: r.Target, Kind: r.Kind.String(), Execution: r.Execution, State: r.State.String(), Reason: r.Reason,
		Attempts: uint32(max(r.Attempts, 0)), Size: uint64(max(r.Size, 0)), CreatedAt: timestamppb.New(r.Created),
	}
	if s != nil {
		if t := s.Target(r.Target); t != nil {
			out.TargetName = t.Name
		}
	}
	if !r.Next.IsZero() && (r.State == queue.StatePending || r.State == queue.StateParked) {
		out.NextAttemptAt = timestamppb.New(r.Next)
	}
	if !r.Ended.IsZero() {
		out.EndedAt = timestamppb.New(r.Ended)
	}
	for _, a := range r.History {
		out.History = append(out.History, &gatewaypb.DeliveryAttempt{
			Number: uint32(max(a.Number, 0)), Time: timestamppb.New(a.At), Outcome: a.Outcome, Status: uint32(max(a.Status, 0)),
			Latency: durationpb.New(a.Latency), Detail: a.Detail,
		})
	}
	return out
}
