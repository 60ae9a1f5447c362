package demoapi

import (
	"fmt"

	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// profileOf returns the profile that p makes of the old one, which may be nil.
func profileOf(p *userpb.SetHumanProfile, old *userpb.HumanProfile) *userpb.HumanProfile {
	next := &userpb.HumanProfile{
		GivenName: p.GetGivenName(), FamilyName: p.GetFamilyName(),
		NickName: p.NickName, DisplayName: p.DisplayName,
		PreferredLanguage: p.PreferredLanguage, Gender: p.Gender,
		AvatarUrl: old.GetAvatarUrl(),
	}
	if old != nil {
		if next.NickName == nil {
			next.NickName = old.NickName
		}
		if next.DisplayName == nil {
			next.DisplayName = old.DisplayName
		}
		if next.PreferredLanguage == nil {
			next.PreferredLanguage = old.PreferredLanguage
		}
		if next.Gender == nil {
			next.Gender = old.Gender
		}
	}
	if next.DisplayName == nil {
		next.DisplayName = new(p.GetGivenName() + " " + p.GetFamilyName())
	}
	if next.PreferredLanguage == nil {
		next.PreferredLanguage = new("und")
	}
	if next.Gender == nil {
		next.Gender = new(userpb.Gender_GENDER_UNSPECIFIED)
	}
	if next.NickName == nil {
		next.NickName = new("")
	}
	return next
}

// profilePayload is a profile as events store it.
func profilePayload(p *userpb.HumanProfile) map[string]any {
	payload := map[string]any{
		"firstName":         p.GetGivenName(),
		"lastName":          p.GetFamilyName(),
		"displayName":       p.GetDisplayName(),
		"preferredLanguage": p.GetPreferredLanguage(),
	}
	if p.GetNickName() != "" {
		payload["nickName"] = p.GetNickName()
	}
	if p.GetGender() != userpb.Gender_GENDER_UNSPECIFIED {
		payload["gender"] = float64(p.GetGender())
	}
	return payload
}

func checkAddHumanUser(req *userpb.AddHumanUserRequest) error {
	const m = "AddHumanUserRequest."
	list := checks{
		optionalLength(m+"UserId", req.UserId, 1, 200),
		optionalLength(m+"Username", req.Username, 1, 200),
		present(m+"Profile", req.GetProfile() != nil),
		checkProfile(req.GetProfile()),
		present(m+"Email", req.GetEmail() != nil),
		checkEmail(req.GetEmail()),
		checkPhone(req.GetPhone()),
		checkPassword200(req.GetPassword(), req.GetHashedPassword()),
		optionalLength(m+"TotpSecret", req.TotpSecret, 1, 200),
	}
	for i, md := range req.GetMetadata() {
		list = append(list, length(fmt.Sprintf("%sMetadata[%d].Key", m, i), md.GetKey(), 1, 200))
		if n := len(md.GetValue()); n < 1 || n > 500_000 {
			list = append(list, invalid(fmt.Sprintf("%sMetadata[%d].Value", m, i), "value length must be between 1 and 500000 bytes, inclusive"))
		}
	}
	for i, l := range req.GetIdpLinks() {
		f := fmt.Sprintf("%sIdpLinks[%d].", m, i)
		list = append(list,
			length(f+"IdpId", l.GetIdpId(), 1, 200),
			length(f+"UserId", l.GetUserId(), 1, 200),
			length(f+"UserName", l.GetUserName(), 1, 200))
	}
	return list.err()
}

func checkUpdateHumanUser(req *userpb.UpdateHumanUserRequest) error {
	const m = "UpdateHumanUserRequest."
	list := checks{
		length(m+"UserId", req.GetUserId(), 1, 200),
		optionalLength(m+"Username", req.Username, 1, 200),
		checkProfile(req.GetProfile()),
		checkEmail(req.GetEmail()),
		checkPhone(req.GetPhone()),
	}
	if p := req.GetPassword(); p != nil {
		list = append(list,
			present("SetPassword.PasswordType", p.GetPasswordType() != nil),
			checkPassword200(p.GetPassword(), p.GetHashedPassword()))
	}
	return list.err()
}

func checkProfile(p *userpb.SetHumanProfile) error {
	if p == nil {
		return nil
	}
	const m = "SetHumanProfile."
	return checks{
		length(m+"GivenName", p.GetGivenName(), 1, 200),
		length(m+"FamilyName", p.GetFamilyName(), 1, 200),
		optionalLength(m+"NickName", p.NickName, 0, 200),
		optionalLength(m+"DisplayName", p.DisplayName, 1, 200),
		optionalLength(m+"PreferredLanguage", p.PreferredLanguage, 1, 10),
	}.err()
}

func checkEmail(e *userpb.SetHumanEmail) error {
	if e == nil {
		return nil
	}
	return emailAddress("SetHumanEmail.Email", e.GetEmail())
}

func checkPhone(p *userpb.SetHumanPhone) error {
	if p == nil {
		return nil
	}
	return length("SetHumanPhone.Phone", p.GetPhone(), 1, 200)
}

// checkPassword200 checks the form of whichever of the two is set.
func checkPassword200(p *userpb.Password, h *userpb.HashedPassword) error {
	switch {
	case p != nil:
		return length("Password.Password", p.GetPassword(), 1, 200)
	case h != nil:
		return length("HashedPassword.Hash", h.GetHash(), 1, 200)
	}
	return nil
}
