package demoapi_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func TestDescriptorSetStandsAlone(t *testing.T) {
	t.Parallel()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(demoapi.DescriptorSet(), set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zitadel.user.v2.UserService", "zitadel.session.v2.SessionService", "zitadel.admin.v1.AdminService", "execgate.demo.v1.StreamService", "execgate.demo.v1.RouteService"} {
		if _, err := files.FindDescriptorByName(protoreflect.FullName(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
