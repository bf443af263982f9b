/** One domain of a policy: the name itself, or everything below it. Names are lower case, without the dot at their end. */
export interface DomainRule {
  readonly name: string
  readonly below: boolean
}

/** The domains of a policy. Without `allow` every name is allowed that `deny` does not have. */
export interface DomainRules {
  readonly allow?: readonly DomainRule[]
  readonly deny: readonly DomainRule[]
}

export function matchesDomain(rule: DomainRule, name: string): boolean {
  return rule.below ? name.endsWith(`.${rule.name}`) : name === rule.name
}

export function isDenied(rules: DomainRules, name: string): boolean {
  return rules.deny.some((rule) => matchesDomain(rule, name))
}

export function isAllowed(rules: DomainRules, name: string): boolean {
  return !isDenied(rules, name) && (rules.allow === undefined || rules.allow.some((rule) => matchesDomain(rule, name)))
}
