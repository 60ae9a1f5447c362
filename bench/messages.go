//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// What is called. The methods are those of the demo identity API, whose descriptors the gateway is given.
const (
	unaryMethod  = "/zitadel.user.v2.UserService/AddHumanUser"
	blobMethod   = "/execgate.demo.v1.StreamService/Blob"
	streamMethod = "/execgate.demo.v1.StreamService/Count"
	restPath     = "/v2/users/217456118543000004"

	authority   = "auth.example.com"
	bearer      = "Bearer dG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4" //nolint:gosec // G101: what a token looks like.
	webhookPath = "/webhook"
	rewritePath = "/rewrite"
	countsPath  = "/counts"

	streamMessages = 1000
	streamMessage  = 200
)

// streamRequest is the CountRequest {to: 1000}.
var streamRequest = [...]byte{0x08, 0xe8, 0x07}

// restBody is what a user looks like in JSON, 200 bytes.
var restBody = func() string {
	const start, end = `{"user":{"userId":"217456118543000004","state":"USER_STATE_ACTIVE","username":"road.runner","human":{"profile":{"givenName":"Road","familyName":"Runner","displayName":"`, `"}}}}`
	return start + strings.Repeat("x", 200-len(start)-len(end)) + end
}()

// newUser is an AddHumanUserRequest of 200 bytes.
var newUser = func() *userpb.AddHumanUserRequest {
	m := &userpb.AddHumanUserRequest{
		Username: proto.String("road.runner"),
		Profile: &userpb.SetHumanProfile{
			GivenName: "Road", FamilyName: "Runner", DisplayName: proto.String("Road Runner"),
			PreferredLanguage: proto.String("en"), Gender: userpb.Gender_GENDER_DIVERSE.Enum(),
		},
		Email: &userpb.SetHumanEmail{Email: "road.runner@acme.example.com", Verification: &userpb.SetHumanEmail_IsVerified{IsVerified: true}},
		Phone: &userpb.SetHumanPhone{Phone: "+41791234567"},
		Metadata: []*userpb.SetMetadataEntry{
			{Key: "department", Value: []byte("pursuit")},
			{Key: "note", Value: nil},
		},
	}
	m.Metadata[1].Value = []byte(strings.Repeat("n", 200-proto.Size(m)-2)) // Its key and its length take two bytes.
	return m
}()

func newUserMessage() []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(newUser)
	if err != nil || len(b) != 200 {
		panic(fmt.Sprintf("the request has %d bytes: %v", len(b), err))
	}
	return b
}

// rewrittenJSON is newUser, as a target answers it.
func rewrittenJSON() string {
	b, err := protojson.Marshal(newUser)
	if err != nil {
		panic(err)
	}
	var compact map[string]any // protojson varies its spaces.
	if err := json.Unmarshal(b, &compact); err != nil {
		panic(err)
	}
	if b, err = json.Marshal(compact); err != nil {
		panic(err)
	}
	return string(b)
}
