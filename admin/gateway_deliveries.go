package admin

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

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
	if _, err := queue.ParseState(r.GetState()); r.GetState() != "" && err != nil {
		return invalid("state: value must be pending, parked, delivered or dead")
	}
	if r.GetLimit() > maxDeliveries {
		return invalid("limit: value must be at most %d", maxDeliveries)
	}
	if utf8.RuneCountInString(r.GetCursor()) > maxDeliveryIDRunes || strings.ContainsFunc(r.GetCursor(), func(c rune) bool { return c < '!' || c > '~' }) {
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

// ListDeliveries returns a page of them.
func (g *gateway) ListDeliveries(ctx context.Context, r *gatewaypb.ListDeliveriesRequest) (*gatewaypb.ListDeliveriesResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	s := g.lastKnown(ctx)
	f := queue.Filter{Target: deliveryTarget(s, r.GetTarget()), Limit: int(r.GetLimit()), Cursor: r.GetCursor()}
	if r.GetState() != "" {
		var err error
		if f.State, err = queue.ParseState(r.GetState()); err != nil {
			return nil, err
		}
	}
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
	return &gatewaypb.ReplayDeliveryResponse{}, nil
}

// ReplayDeliveries makes all dead letters pending, or those of a target.
func (g *gateway) ReplayDeliveries(ctx context.Context, r *gatewaypb.ReplayDeliveriesRequest) (*gatewaypb.ReplayDeliveriesResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	n, err := queue.ReplayAll(ctx, g.o.Deliveries, queue.Filter{Target: deliveryTarget(g.lastKnown(ctx), r.GetTarget())})
	if err != nil {
		return nil, deliveryError(err)
	}
	return &gatewaypb.ReplayDeliveriesResponse{Replayed: uint32(max(n, 0))}, nil
}

// DropDelivery forgets one.
func (g *gateway) DropDelivery(ctx context.Context, r *gatewaypb.DropDeliveryRequest) (*gatewaypb.DropDeliveryResponse, error) {
	if g.o.Deliveries == nil {
		return nil, errNoDeliveries
	}
	if err := g.o.Deliveries.Drop(ctx, r.GetId()); err != nil {
		return nil, deliveryError(err)
	}
	return &gatewaypb.DropDeliveryResponse{}, nil
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
